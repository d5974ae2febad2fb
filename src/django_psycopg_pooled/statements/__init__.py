"""What is known of a statement by its text alone. Knows no driver and no connection."""
