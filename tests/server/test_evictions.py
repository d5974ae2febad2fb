"""Connections that the server ends, or whose errors say that they should end; and those that stay.

PAINS 21 to 24 and 32: what the server's errors say of a connection, and of its neighbours.
"""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, Error, OperationalError, transaction

from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases, looked_after
from tests.server.support import (
    DATABASE,
    borrow,
    eventually,
    fill,
    lent_to_a_thread,
    pool_of,
    value,
)

RAISE = "DO $$BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{}'; END$$"


def fail_with(connection: PooledWrapper, sqlstate: str) -> None:
    """Have the server answer a statement with this code."""
    with connection.cursor() as cursor, pytest.raises(DatabaseError) as raised:
        cursor.execute(RAISE.format(sqlstate))
    assert raised.value.__cause__ is not None
    assert DRIVER.sqlstate(raised.value.__cause__) == sqlstate


def test_a_session_that_the_server_ends_for_being_idle_fails_no_request(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1}, options={"options": "-c idle_session_timeout=400"})
    pids = set()
    for _ in range(8):
        pids.add(value(connection, "SELECT pg_backend_pid()"))
        connection.close()
        eventually(lambda: databases.server.backends("datname = 'tests'") == 0)
    assert len(pids) == 8
    stats = pool_of(connection).get_stats()
    assert stats["requests_errors"] == 0
    # The last one's end has not been seen yet.
    assert stats["connections_lost"] == 7


class Asked:
    """A check that counts the times, and asks the server as the pool would."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, raw: Any) -> None:
        self.times += 1
        DRIVER.check(raw)


def test_a_keepalive_shorter_than_the_servers_patience_keeps_a_connection(
    databases: Databases,
) -> None:
    asked = Asked()
    connection = databases.add(
        {"max_size": 1, "min_size": 0, "keepalive": 0.2, "check": asked},
        options={"options": "-c idle_session_timeout=1000"},
    )
    pid = borrow(connection)
    connection.close()
    eventually(lambda: asked.times > 5)
    # Without one the server would have ended it by now: the naps of a pool are 0.5 s at least.
    assert borrow(connection) == pid
    assert pool_of(connection).get_stats()["connections_lost"] == 0


@pytest.mark.parametrize("sqlstate", ["08006", "57P01", "57P02", "57P03"])
@pytest.mark.parametrize("num_workers", [3, 0])
def test_an_error_that_means_the_server_goes_replaces_every_connection(
    databases: Databases, sqlstate: str, num_workers: int
) -> None:
    connection = databases.add({"max_size": 4, "min_size": 0, "num_workers": num_workers})
    old = replaced_after(connection, sqlstate)
    eventually(lambda: databases.server.backends(f"pid IN {(*old, 0)}") == 0)


def replaced_after(connection: PooledWrapper, sqlstate: str) -> list[int]:
    """Fail one of four connections, while another is lent; the old ones, none of which may stay."""
    pool = pool_of(connection)
    old = fill(pool, 4)
    with lent_to_a_thread(connection.alias):
        fail_with(connection, sqlstate)
        connection.close()
        assert borrow(connection) not in old
        assert pool.get_stats()["pool_size"] == 2
        connection.close()
    for pid in fill(pool, 4):
        assert pid not in old
    return old


@pytest.mark.parametrize(
    ("evict_on", "sqlstate"), [(["XX001"], "XX001"), (["53"], "53100"), (["XX"], "57P01")]
)
def test_evict_on_names_further_errors_that_replace_every_connection(
    databases: Databases, evict_on: list[str], sqlstate: str
) -> None:
    connection = databases.add({"max_size": 4, "min_size": 0, "evict_on": evict_on})
    replaced_after(connection, sqlstate)


# 57014 is a cancelled statement, beside 57P01; 53100 a full disk.
@pytest.mark.parametrize(
    "sqlstate", ["57014", "22012", "40001", "53100", "53200", "53400", "P0001"]
)
def test_any_other_error_costs_no_connection(databases: Databases, sqlstate: str) -> None:
    connection = databases.add({"max_size": 4})
    old = fill(pool_of(connection), 4)
    fail_with(connection, sqlstate)
    connection.close()
    assert sorted(fill(pool_of(connection), 4)) == sorted(old)
    assert pool_of(connection).get_stats()["connections_lost"] == 0


def test_a_write_in_a_transaction_that_was_to_read_only_costs_no_connection(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 4})
    old = fill(pool_of(connection), 4)
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(DatabaseError, match="read-only transaction"):
            cursor.execute("CREATE TABLE never (id int)")
        transaction.set_rollback(True, using=connection.alias)
    connection.close()
    assert sorted(fill(pool_of(connection), 4)) == sorted(old)


def test_an_error_inside_a_cursor_of_the_drivers_own_replaces_the_connections_too(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 2, "min_size": 0})
    pool = pool_of(connection)
    old = fill(pool, 2)
    connection.ensure_connection()
    with connection.connection.cursor() as cursor, pytest.raises(connection.Database.Error):
        cursor.execute(RAISE.format("57P01"))
    connection.close()
    assert borrow(connection) not in old


def test_an_eviction_in_a_transaction_ends_that_transaction_as_any_error_does(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 2, "min_size": 0})
    old = fill(pool_of(connection), 2)
    connection.set_autocommit(False)
    fail_with(connection, "57P01")
    connection.rollback()
    # Still its own until it is given back: half a request on another session helps nobody.
    assert value(connection, "SELECT pg_backend_pid()") in old
    connection.close()
    assert borrow(connection) not in old


SORT = "SELECT max(g) FROM (SELECT g FROM generate_series(1, 60000) g ORDER BY g::text OFFSET 0) s"
LOCKS = "SELECT count(pg_advisory_xact_lock(g)) FROM generate_series(1, 1000000) g"


@pytest.mark.parametrize(
    ("settings", "sql", "sqlstate"),
    [
        ("-c temp_file_limit=100kB -c work_mem=64kB", SORT, "53400"),
        ("", LOCKS, "53200"),  # out of shared memory
        ("", "SELECT repeat('x', 1 << 30)", "54000"),  # longer than a value may be
        ("-c statement_timeout=50", "SELECT pg_sleep(20)", "57014"),
    ],
    ids=["disk", "memory", "length", "time"],
)
def test_a_server_short_of_something_fails_the_statement_and_keeps_the_connection(
    databases: Databases, settings: str, sql: str, sqlstate: str
) -> None:
    connection = databases.add({"max_size": 1}, options={"options": settings})
    pid = borrow(connection)
    with pytest.raises(DatabaseError) as raised:
        value(connection, sql)
    assert raised.value.__cause__ is not None
    assert DRIVER.sqlstate(raised.value.__cause__) == sqlstate
    connection.close()
    assert value(connection, "SELECT pg_backend_pid()") == pid


@pytest.fixture
def mortal() -> Iterator[Databases]:
    """Aliases on a server of this test's own."""
    with PostgresServer() as server:
        server.create_database(DATABASE)
        yield from looked_after(Databases(server))


def test_a_process_of_the_server_that_dies_takes_all_connections_and_no_request_after_it(
    mortal: Databases,
) -> None:
    connection = mortal.add({"max_size": 5, "min_size": 0})
    pool = pool_of(connection)
    old = fill(pool, 5)
    os.kill(borrow(connection), signal.SIGKILL)
    with pytest.raises(Error):
        value(connection, "SELECT pg_sleep(20)")
    connection.close()
    # Now the server ends all other processes, which takes a moment in which they may still answer,
    # and is in recovery, and says 57P03 to new connections.
    assert value(connection, "SELECT pg_backend_pid()") not in old
    assert pool.snapshot().size == 1


def test_a_lent_connection_that_is_terminated_fails_once(databases: Databases) -> None:
    connection = databases.add({"max_size": 3, "min_size": 0})
    old = fill(pool_of(connection), 3)
    borrow(connection)
    databases.server.terminate_backends(DATABASE)
    with pytest.raises(OperationalError):
        value(connection, "SELECT 1")
    connection.close()
    for _ in range(3):
        assert value(connection, "SELECT pg_backend_pid()") not in old
        connection.close()
