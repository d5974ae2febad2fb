"""Django's PostgreSQL backend with a pool."""

from django.db.backends.postgresql import base, features, operations, schema

from django_psycopg_pooled.integration.creation import PooledCreation
from django_psycopg_pooled.integration.features import PooledFeatures
from django_psycopg_pooled.integration.in_arrays import ArrayOperations
from django_psycopg_pooled.integration.schema import PooledSchemaEditor
from django_psycopg_pooled.integration.wrapper import PooledWrapper


class DatabaseFeatures(PooledFeatures, features.DatabaseFeatures):
    """The stock backend's features."""


class DatabaseOperations(ArrayOperations, operations.DatabaseOperations):
    """The stock backend's operations."""


class DatabaseSchemaEditor(PooledSchemaEditor, schema.DatabaseSchemaEditor):
    """The stock backend's schema editor."""


class DatabaseWrapper(PooledWrapper, base.DatabaseWrapper):
    """The stock backend's wrapper, which borrows its connection from a pool."""

    features_class = DatabaseFeatures
    ops_class = DatabaseOperations
    SchemaEditorClass = DatabaseSchemaEditor
    creation_class = PooledCreation
