"""Django's PostgreSQL backend with a pool."""

from django.db.backends.postgresql import base, features

from django_psycopg_pooled.integration.creation import PooledCreation
from django_psycopg_pooled.integration.features import PooledFeatures
from django_psycopg_pooled.integration.wrapper import PooledWrapper


class DatabaseFeatures(PooledFeatures, features.DatabaseFeatures):
    """The stock backend's features."""


class DatabaseWrapper(PooledWrapper, base.DatabaseWrapper):
    """The stock backend's wrapper, which borrows its connection from a pool."""

    features_class = DatabaseFeatures
    creation_class = PooledCreation
