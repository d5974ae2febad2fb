"""Schemas change under prepared statements; their users notice nothing, or once."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext as nothing
from typing import Any

import pytest
from django.contrib.postgres.signals import (
    get_citext_oids,
    get_hstore_oids,
    register_type_handlers,
)
from django.db import DatabaseError, InternalError, NotSupportedError, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.db.backends.signals import connection_created

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


MOODS = (
    "DROP TABLE IF EXISTS moods; DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('sad', 'ok');"
    "CREATE TABLE moods AS SELECT n AS id, 'ok'::mood AS mood FROM generate_series(1, 2) n"
)
# As PostgreSQL's manual has a label taken away: another type of that name, made of the texts.
ANOTHER_ENUM = (
    "BEGIN; ALTER TYPE mood RENAME TO mood_old; CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');"
    "ALTER TABLE moods ALTER mood TYPE mood USING mood::text::mood; DROP TYPE mood_old; COMMIT"
)
COUNT_MOODS = "SELECT count(*) FROM moods WHERE mood = %s"
SET_MOOD = "UPDATE moods SET mood = %s WHERE id = %s"


@pytest.fixture
def moods(things: PooledWrapper, change: Callable[[str], object]) -> PooledWrapper:
    """An alias that has prepared what has an enum among its parameters."""
    change(MOODS)
    assert [moods_of(things, "ok"), moods_of(things, "sad")] == [2, 0]
    set_mood(things, "ok")
    assert facts(things, COUNT_MOODS[:24]).hits == 2
    return things


def moods_of(connection: PooledWrapper, mood: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(COUNT_MOODS, [mood])
        return cursor.fetchone()[0]


def set_mood(connection: PooledWrapper, mood: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(SET_MOOD, [mood, 1])


def test_outside_a_transaction_nobody_notices_that_a_type_is_another_one_of_its_name(
    moods: PooledWrapper, change: Callable[[str], object]
) -> None:
    change(ANOTHER_ENUM)
    for _ in range(2):
        set_mood(moods, "glad")
        assert [moods_of(moods, "glad"), moods_of(moods, "ok")] == [1, 1]
        moods.close()
    for text in (COUNT_MOODS, SET_MOOD):
        assert facts(moods, text[:24]).state == "prepared"
        assert facts(moods, text[:24]).connections == 1


def test_in_a_transaction_another_type_of_that_name_raises_once(
    moods: PooledWrapper, change: Callable[[str], object]
) -> None:
    change(ANOTHER_ENUM)
    with (
        pytest.raises(InternalError, match="cache lookup failed for type"),
        transaction.atomic(using=moods.alias),
    ):
        moods_of(moods, "glad")

    def update() -> Any:
        with transaction.atomic(using=moods.alias):
            set_mood(wrapper(moods.alias), "glad")
            return moods_of(wrapper(moods.alias), "glad")

    assert [update(), update(), in_thread(update)] == [1, 1, 1]
    assert facts(moods, COUNT_MOODS[:24]).state == "prepared"


@pytest.fixture
def hstores(things: PooledWrapper, change: Callable[[str], object]) -> Iterator[PooledWrapper]:
    """An alias that has prepared what has an hstore among its parameters."""
    change("CREATE EXTENSION hstore; CREATE TABLE hstores (h hstore)")
    things.close()
    prepared_pool(things).drain()
    connection_created.connect(register_type_handlers)
    try:
        keep(things)
        assert facts(things, KEEP[:20]).hits == 1
        yield things
    finally:
        connection_created.disconnect(register_type_handlers)
        get_hstore_oids.cache_clear()  # type: ignore[attr-defined]
        get_citext_oids.cache_clear()  # type: ignore[attr-defined]
        change("DROP TABLE hstores; DROP EXTENSION hstore")


KEEP = "INSERT INTO hstores VALUES (%s)"
ANOTHER_EXTENSION = (
    "DROP TABLE hstores; DROP EXTENSION hstore; CREATE EXTENSION hstore;"
    "CREATE TABLE hstores (h hstore)"
)


def keep(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute(KEEP, [{"a": "1"}])
        assert cursor.rowcount == 1


def test_outside_a_transaction_nobody_notices_that_an_extension_was_created_again(
    hstores: PooledWrapper, change: Callable[[str], object]
) -> None:
    """Django goes on with the oids that the extension's types had before."""
    change(ANOTHER_EXTENSION)
    for _ in range(3):
        keep(hstores)
        hstores.close()
    with transaction.atomic(using=hstores.alias):
        keep(hstores)


def test_in_a_transaction_an_extension_created_again_raises_once(
    hstores: PooledWrapper, change: Callable[[str], object]
) -> None:
    change(ANOTHER_EXTENSION)
    with pytest.raises(InternalError), transaction.atomic(using=hstores.alias):
        keep(hstores)
    for _ in range(2):
        with transaction.atomic(using=hstores.alias):
            keep(hstores)
    hstores.close()
    with transaction.atomic(using=hstores.alias):
        keep(hstores)


def test_what_selects_a_changed_column_heals_what_only_compares_it(
    things: PooledWrapper, change: Callable[[str], object]
) -> None:
    """Of the latter the server says nothing: see known limits."""

    def count() -> Any:
        with things.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM things WHERE name = %s", ["ONE"])
            return cursor.fetchone()[0]

    assert [count(), row(things, BY_ID)] == [0, ("one",)]
    change("CREATE EXTENSION IF NOT EXISTS citext; ALTER TABLE things ALTER name TYPE citext")
    assert row(things, BY_ID) == ("one",)
    assert [count(), count()] == [1, 1]
    assert facts(things, "SELECT count").state == "prepared"


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
