"""Which statements run prepared, and since when. Knows no driver: see drivers.preparing."""
