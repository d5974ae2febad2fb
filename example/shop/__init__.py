"""The shop: products in categories, customers, their orders and reviews."""
