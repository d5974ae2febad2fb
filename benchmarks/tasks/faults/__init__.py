"""What a contender's own process does in a fault; benchmarks.worker calls these by name."""
