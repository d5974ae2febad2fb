"""Our backend beside its peers, one command a question; `python -m benchmarks` runs them all."""
