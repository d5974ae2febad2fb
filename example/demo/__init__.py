"""make demo: the shop under HTTP load, once per way to connect to the database, in one table."""
