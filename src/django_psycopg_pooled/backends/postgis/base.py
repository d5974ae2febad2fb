"""GeoDjango's PostGIS backend with a pool."""

from django.contrib.gis.db.backends.postgis import base, features, operations, schema

from django_psycopg_pooled.integration.creation import PooledCreation
from django_psycopg_pooled.integration.features import PooledFeatures
from django_psycopg_pooled.integration.in_arrays import ArrayOperations
from django_psycopg_pooled.integration.schema import PooledSchemaEditor
from django_psycopg_pooled.integration.wrapper import PooledWrapper


class DatabaseFeatures(PooledFeatures, features.DatabaseFeatures):
    """GeoDjango's features."""


class PostGISOperations(ArrayOperations, operations.PostGISOperations):
    """GeoDjango's operations."""


class PostGISSchemaEditor(PooledSchemaEditor, schema.PostGISSchemaEditor):
    """GeoDjango's schema editor."""


class DatabaseWrapper(PooledWrapper, base.DatabaseWrapper):
    """GeoDjango's wrapper, which borrows its connection from a pool.

    The geometry adapters are registered once for each server session, not at each checkout.
    """

    features_class = DatabaseFeatures
    ops_class = PostGISOperations
    SchemaEditorClass = PostGISSchemaEditor
    creation_class = PooledCreation
