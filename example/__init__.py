"""A small shop on Django, and the demo that serves it with several database backends."""
