"""A PostgreSQL backend for Django with a connection pool."""

from django_psycopg_pooled.version import __version__

__all__ = ["__version__"]
