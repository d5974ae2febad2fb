"""What a peer's own process does; benchmarks.worker calls these functions by name."""
