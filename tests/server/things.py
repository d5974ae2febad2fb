"""A table of things, and what is prepared of the statements that read it."""

from typing import Any

from django.db import models

from django_psycopg_pooled.facts.prepared import PreparedFacts
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import pool_of

NAMES = "SELECT name FROM pg_prepared_statements WHERE name LIKE '\\_dpp\\_%'"
BY_ID = "SELECT name FROM things WHERE id = %s"
# Throws away what is prepared; its text does not say so.
FORGET = "SELECT forget()"
CREATE_FORGET = (
    "CREATE OR REPLACE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS"
    " 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'"
)


class Thing(models.Model):
    name = models.CharField(max_length=50, unique=True)

    class Meta:
        app_label = "prepared"
        db_table = "things"


def prepared_pool(connection: PooledWrapper) -> DatabasePool:
    pool = pool_of(connection)
    assert isinstance(pool, DatabasePool)
    return pool


def with_things(databases: Databases, **pool: Any) -> PooledWrapper:
    """An alias that prepares at the first execution, with a table of three things."""
    connection = databases.add({"prepare": "auto", "prepare_threshold": 0, "max_size": 4, **pool})
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS things")
        cursor.execute("CREATE TABLE things (id serial PRIMARY KEY, name varchar(50) UNIQUE)")
        cursor.execute("INSERT INTO things (name) VALUES ('one'), ('two'), ('three')")
    return connection


def names(connection: PooledWrapper) -> list[str]:
    """What is prepared on the connection that is borrowed now."""
    with connection.cursor() as cursor:
        cursor.execute(NAMES)
        return [name for (name,) in cursor.fetchall()]


def facts(connection: PooledWrapper, start: str = "SELECT name FROM things") -> PreparedFacts:
    """Of the one text that begins so."""
    [found] = [f for f in prepared_pool(connection).prepared() if f.text.startswith(start)]
    return found
