"""Schemas change under prepared statements; their users notice nothing, or once."""

from collections.abc import Callable
from contextlib import nullcontext as nothing
from typing import Any

import pytest
from django.db import DatabaseError, NotSupportedError, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import DATABASE, borrow, in_thread, wrapper
from tests.server.things import (
    BY_ID,
    CREATE_FORGET,
    FORGET,
    facts,
    names,
    prepared_pool,
    with_things,
)

ALL = "SELECT * FROM things WHERE id = %s"


@pytest.fixture
def things(databases: Databases) -> PooledWrapper:
    things = with_things(databases)
    with things.cursor() as cursor:
        cursor.execute(CREATE_FORGET)
    for sql in (ALL, BY_ID):
        row(things, sql)
    assert len(names(things)) == 2
    return things


@pytest.fixture
def change(things: PooledWrapper, server: PostgresServer) -> Callable[[str], object]:
    """Changes the schema as another process does."""
    return lambda sql: server.psql(sql, DATABASE)


def row(connection: PooledWrapper, sql: str = ALL) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, [1])
        return cursor.fetchone()


CHANGES = {
    "a column is added": ("ALTER TABLE things ADD COLUMN more int DEFAULT 7", (1, "one", 7)),
    "a column is dropped": ("ALTER TABLE things DROP COLUMN name", (1,)),
    "a column gets another type": (
        "ALTER TABLE things ALTER COLUMN name TYPE text[] USING ARRAY[name]", (1, ["one"])
    ),
    "the key gets another type": ("ALTER TABLE things ALTER COLUMN id TYPE bigint", (1, "one")),
    "the table is another one": (
        "DROP TABLE things; CREATE TABLE things AS SELECT 1 AS id, 'new' AS name", (1, "new")
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), CHANGES.values(), ids=CHANGES)
def test_outside_a_transaction_nobody_notices_that(
    things: PooledWrapper, change: Callable[[str], object], sql: str, expected: tuple[Any, ...]
) -> None:
    change(sql)
    for _ in range(3):
        assert row(things) == expected
    assert facts(things, "SELECT *").state == "prepared"


@pytest.mark.parametrize(
    ("sql", "expected"), [CHANGES["a column is added"], CHANGES["a column gets another type"]]
)
def test_in_a_transaction_a_stale_statement_raises_once(
    things: PooledWrapper, change: Callable[[str], object], sql: str, expected: tuple[Any, ...]
) -> None:
    change(sql)
    with pytest.raises(NotSupportedError), transaction.atomic(using=things.alias):
        row(things)
    for _ in range(2):
        with transaction.atomic(using=things.alias):
            assert row(things) == expected

    def elsewhere() -> Any:
        with transaction.atomic(using=things.alias):
            return row(wrapper(things.alias))

    assert in_thread(elsewhere) == expected


def test_a_table_that_is_gone_is_an_error_as_ever(
    things: PooledWrapper, change: Callable[[str], object]
) -> None:
    change("ALTER TABLE things RENAME TO others")
    for _ in range(2):
        with pytest.raises(DatabaseError, match='relation "things" does not exist'):
            row(things)
    change("ALTER TABLE others RENAME TO things")
    for _ in range(2):
        assert row(things) == (1, "one")
    assert facts(things, "SELECT *").state == "prepared"


@pytest.mark.parametrize("sql", [FORGET, "DEALLOCATE ALL", "DISCARD ALL"])
def test_who_throws_all_prepared_statements_away_does_no_harm(
    things: PooledWrapper, sql: str
) -> None:
    with things.cursor() as cursor:
        cursor.execute(sql)
    for _ in range(3):
        with transaction.atomic(using=things.alias, durable=True) if sql != FORGET else nothing():
            assert row(things) == (1, "one")
            assert row(things, BY_ID) == ("one",)
    assert len(names(things)) == 2
    assert not [f for f in prepared_pool(things).prepared() if f.state != "prepared"]


def test_in_a_transaction_a_statement_thrown_away_raises_once(things: PooledWrapper) -> None:
    with things.cursor() as cursor:
        cursor.execute(FORGET)
    with (
        pytest.raises(DatabaseError, match="does not exist"),
        transaction.atomic(using=things.alias),
    ):
        row(things)
    with transaction.atomic(using=things.alias):
        assert row(things) == (1, "one")
        assert row(things, BY_ID) == ("one",)


def discard_all(connection: Any) -> None:
    """A reset as many people write it."""
    with connection.cursor() as cursor:
        cursor.execute("DISCARD ALL")


def test_a_reset_that_discards_all_fails_no_transaction(databases: Databases) -> None:
    things = with_things(databases, reset=discard_all, max_size=1)
    for _ in range(3):
        with transaction.atomic(using=things.alias):
            assert row(things) == (1, "one")
            assert row(things, BY_ID) == ("one",)
        things.close()
    assert facts(things, "SELECT *").hits == 3


def test_new_connections_prepare_anew_after_the_server_ended_the_old_ones(
    things: PooledWrapper, server: PostgresServer
) -> None:
    pid = borrow(things)
    things.close()
    server.psql(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert row(things) == (1, "one")
    assert borrow(things) != pid
    assert len(names(things)) == 1


def test_after_this_process_has_changed_the_schema_no_transaction_fails(
    things: PooledWrapper,
) -> None:
    with things.cursor() as cursor:
        cursor.execute("ALTER TABLE things ADD COLUMN more int")
    prepared_pool(things).forget_plans()
    with transaction.atomic(using=things.alias):
        assert row(things) == (1, "one", None)
    assert facts(things, "SELECT *").state == "prepared"


def test_a_migration_reads_the_table_that_it_has_just_changed(things: PooledWrapper) -> None:
    with things.schema_editor() as editor:
        assert row(things) == (1, "one")
        editor.execute("ALTER TABLE things ADD COLUMN more int")
        for _ in range(2):
            assert row(things) == (1, "one", None)
    assert row(things) == (1, "one", None)
    assert facts(things, "SELECT *").state == "prepared"


def test_a_schema_that_each_request_changes_is_given_up(things: PooledWrapper) -> None:
    """As with a schema for each tenant, where `SELECT *` gives other columns."""
    with things.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS tenant CASCADE; CREATE SCHEMA tenant")
        cursor.execute("CREATE TABLE tenant.things AS SELECT 1 AS id, 2 AS name, 3 AS more")
    for _ in range(10):
        for path, expected in [("tenant", (1, 2, 3)), ("public", (1, "one"))]:
            with things.cursor() as cursor:
                cursor.execute(f"SET search_path = {path}")
            assert row(things) == expected
    assert facts(things, "SELECT *").state == "demoted"
    assert "change again and again" in facts(things, "SELECT *").reason


@pytest.mark.skipif(not is_psycopg3, reason="psycopg 3 names the class so")
def test_the_error_in_a_transaction_is_the_drivers_own(
    things: PooledWrapper, change: Callable[[str], object]
) -> None:
    change("ALTER TABLE things ADD COLUMN more int")
    with pytest.raises(NotSupportedError) as caught, transaction.atomic(using=things.alias):
        row(things)
    assert type(caught.value.__cause__).__name__ == "FeatureNotSupported"
