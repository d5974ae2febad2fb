"""What peers do for `prepared`: statements of several shapes, on one set of tables."""
