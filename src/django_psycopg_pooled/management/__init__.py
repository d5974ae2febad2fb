"""Looking at the pools of running processes from a terminal."""
