"""What the tests, the benchmarks and the demo share; not part of the package."""
