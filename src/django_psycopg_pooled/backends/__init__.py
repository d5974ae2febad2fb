"""The ENGINE modules: what stands in DATABASES."""

# Before the stock backend, which would not say how to get a driver if there is none.
from django_psycopg_pooled.integration import driver as driver
