"""Temporary tables that hide permanent ones from statements that are prepared.

The server plans a prepared statement anew when the search path or a table of its changes, not when
a new table hides one; and a session keeps its temporary schema when the tables in it are gone.
"""

import contextlib
from collections.abc import Iterator

import pytest
from django.db import transaction

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import DATABASE, borrow, value
from tests.server.things import names, prepared_pool

NAME = "SELECT name FROM shadow WHERE id = %s"
WRITE = "UPDATE shadow SET name = %s WHERE id = 1"
HIDE = "CREATE TEMP TABLE shadow AS SELECT 1 AS id, 'temporary' AS name"
HIDE_OTHERWISE = "CREATE TEMP TABLE shadow AS SELECT 1 AS id, 7 AS name"


class Undone(Exception):
    """Ends a transaction that is rolled back."""


@pytest.fixture(params=["dirty", "always"])
def shadowed(databases: Databases, request: pytest.FixtureRequest) -> Iterator[PooledWrapper]:
    """A session that has a temporary schema already, and a permanent table to hide."""
    databases.server.psql(
        "CREATE TABLE shadow AS SELECT 1 AS id, 'permanent'::varchar AS name", DATABASE
    )
    options = {"max_size": 1, "prepare": "auto", "prepare_threshold": 0, "reset": request.param}
    connection = databases.add(options)
    run(connection, "CREATE TEMP TABLE earlier (a int)")
    connection.close()
    yield connection
    databases.server.psql("DROP TABLE shadow", DATABASE)


def run(connection: PooledWrapper, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def name(connection: PooledWrapper) -> object:
    return value(connection, NAME, 1)


def rename(connection: PooledWrapper, to: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(WRITE, [to])


def test_it_reads_and_writes_the_temporary_table_and_the_next_borrower_the_permanent_one(
    shadowed: PooledWrapper,
) -> None:
    session = borrow(shadowed)
    for number in range(3):
        rename(shadowed, f"of {number}")
        shadowed.close()
        assert name(shadowed) == f"of {number}"
        run(shadowed, HIDE)
        assert name(shadowed) == "temporary"
        rename(shadowed, "mine")
        assert name(shadowed) == "mine"
        shadowed.close()
        assert name(shadowed) == f"of {number}"
        assert borrow(shadowed) == session
    assert len(names(shadowed)) == 2
    assert {facts.state for facts in prepared_pool(shadowed).prepared()} == {"prepared"}


@pytest.mark.parametrize("ends", ["committed", "rolled back"])
def test_in_a_transaction_too_however_it_ends(shadowed: PooledWrapper, ends: str) -> None:
    """Inside a later transaction a stale statement would be an error that nobody can heal."""
    assert name(shadowed) == "permanent"
    with contextlib.suppress(Undone), transaction.atomic(using=shadowed.alias):
        run(shadowed, HIDE_OTHERWISE)
        assert name(shadowed) == 7
        if ends == "rolled back":
            raise Undone
    shadowed.close()
    with transaction.atomic(using=shadowed.alias):
        assert name(shadowed) == "permanent"
