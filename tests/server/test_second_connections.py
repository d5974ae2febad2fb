"""More than one session in one thread, and connections that were taken away from Django."""

import contextlib

import pytest
from django.db import Error, InterfaceError, OperationalError
from django.db.backends.base.base import NO_DB_ALIAS

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import borrow, eventually, pool_of, value


def test_a_copy_is_a_second_session_from_the_same_pool(databases: Databases) -> None:
    connection = databases.add()
    copy = connection.copy()
    assert isinstance(copy, PooledWrapper)
    try:
        assert borrow(copy) != borrow(connection)
        assert copy.pool is connection.pool
        assert pool_of(connection).snapshot().count("lent") == 2
    finally:
        copy.close()
    assert pool_of(connection).snapshot().count("lent") == 1
    assert value(connection, "SELECT 1") == 1


def test_three_copies_live_at_once(databases: Databases) -> None:
    copies = [databases.add().copy() for _ in range(1)]
    copies += [copies[0].copy() for _ in range(2)]
    with contextlib.ExitStack() as stack:
        pids = set()
        for copy in copies:
            assert isinstance(copy, PooledWrapper)
            stack.callback(copy.close)
            pids.add(borrow(copy))
        assert len(pids) == 3


def nodb_database(connection: PooledWrapper) -> str:
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT current_database()")
        [name] = cursor.fetchone()
    return str(name)


def test_the_connection_to_no_database_is_not_pooled(databases: Databases) -> None:
    connection = databases.add()
    with connection._nodb_cursor() as cursor:
        assert cursor.db.alias == NO_DB_ALIAS
        assert cursor.db.pool is None
    assert nodb_database(connection) == "postgres"
    eventually(lambda: databases.server.backends() == 0)


def test_the_connection_to_no_database_falls_back_to_the_alias_without_a_word_of_pools(
    databases: Databases,
) -> None:
    connection = databases.add(alias="default")
    databases.server.psql("ALTER DATABASE postgres ALLOW_CONNECTIONS false", "tests")
    try:
        with pytest.warns(RuntimeWarning, match="Normally Django will use a connection"):
            assert nodb_database(connection) == "tests"
    finally:
        databases.server.psql("ALTER DATABASE postgres ALLOW_CONNECTIONS true", "tests")
    connection.close()


def test_a_raw_connection_closed_by_the_user_is_replaced(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5})
    first = borrow(connection)
    connection.connection.close()
    with pytest.raises((InterfaceError, OperationalError)):
        value(connection, "SELECT 1")
    connection.close()
    assert borrow(connection) != first
    assert pool_of(connection).get_stats()["returns_bad"] == 1


def test_a_raw_connection_taken_away_without_close_is_given_back(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5})
    first = borrow(connection)
    connection.connection = None
    assert borrow(connection) == first
    assert pool_of(connection).snapshot().count("lent") == 1


def test_a_raw_connection_replaced_by_the_users_own_is_closed_and_ours_given_back(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5})
    first = borrow(connection)
    elsewhere = databases.add(False, TIME_ZONE="Asia/Tokyo")
    own = elsewhere.get_new_connection(elsewhere.get_connection_params())
    connection.connection = own
    # Its cursors must be told the time zone.
    noon = value(connection, "SELECT '2026-07-01 12:00:00+00'::timestamptz")
    assert noon.tzinfo is connection.timezone
    connection.close()
    assert own.closed
    assert borrow(connection) == first


@pytest.mark.parametrize("pool", [True, False])
def test_a_cursor_of_a_closed_connection_is_useless_with_and_without_a_pool(
    databases: Databases, pool: bool
) -> None:
    connection = databases.add(pool)
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    cursor.close()
    connection.close()
    with pytest.raises(Error):
        cursor.execute("SELECT 1")


def test_closing_twice_gives_back_once(databases: Databases) -> None:
    connection = databases.add()
    borrow(connection)
    connection.close()
    connection.close()
    facts = pool_of(connection).snapshot()
    assert (facts.count("lent"), facts.count("idle")) == (0, 1)


def test_closing_what_was_never_opened_does_nothing(databases: Databases) -> None:
    connection = databases.add()
    connection.close()
    connection.close_if_unusable_or_obsolete()
    assert databases.server.backends() == 0


def test_a_wrapper_whose_pool_was_closed_meanwhile_closes_what_it_has(
    databases: Databases,
) -> None:
    connection = databases.add()
    first = borrow(connection)
    connection.close_pool()
    assert value(connection, "SELECT pg_backend_pid()") == first
    connection.close()
    eventually(lambda: databases.server.backends() == 0)
    assert borrow(connection) != first


def test_a_connection_borrowed_before_the_options_changed_returns_to_its_lender(
    databases: Databases,
) -> None:
    connection = databases.add()
    first = borrow(connection)
    lender = pool_of(connection)
    connection.settings_dict["OPTIONS"]["application_name"] = "new"
    assert connection.pool is not lender
    connection.close()
    assert lender.snapshot().count("lent") == 0
    assert borrow(connection) != first


def test_registering_a_type_with_the_driver_works_on_the_raw_connection(
    databases: Databases,
) -> None:
    connection = databases.add()
    borrow(connection)
    if connection.Database.__name__ == "psycopg":
        from psycopg.types import TypeInfo

        assert TypeInfo.fetch(connection.connection, "int4") is not None
    else:
        from psycopg2.extras import register_uuid

        register_uuid(conn_or_curs=connection.connection)  # type: ignore[no-untyped-call]
