"""A Django ENGINE: our backend that watches neither loans nor statements."""
