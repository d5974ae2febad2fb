"""Where a pool's background work runs: in threads of its own, or in the threads that use it."""
