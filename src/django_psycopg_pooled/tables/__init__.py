"""Facts as text for people, in 80 columns; and as JSON."""
