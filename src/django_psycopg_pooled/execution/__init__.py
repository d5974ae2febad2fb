"""One statement, from the cursor to the driver: what it does to its session is noted on the way."""
