"""What readers see: frozen facts, which know nothing of the rooms that made them."""
