"""The ENGINE modules: what stands in DATABASES."""
