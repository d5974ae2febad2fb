"""Transactions that a borrower leaves behind, and close() where one does not expect it."""

import time
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from django.db import Error, InterfaceError, ProgrammingError, connections, transaction

from devtools.postgres import PostgresServer
from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import borrow, in_thread, pool_of, value, wrapper


@pytest.fixture
def connection(databases: Databases) -> Iterator[PooledWrapper]:
    """An alias with one connection, and a table `notes` in its database."""
    databases.server.psql("CREATE TABLE notes (n int)", "tests")
    connection = databases.add({"max_size": 1, "timeout": 5})
    yield connection
    connection.close()
    connection.close_pool()
    databases.server.psql("DROP TABLE notes", "tests")


def write(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (1)")


def notes(databases: Databases) -> int:
    [count] = databases.server.psql("SELECT count(*) FROM notes", "tests")
    return int(count)


def assert_clean(connection: PooledWrapper) -> None:
    """What the next borrower gets is in autocommit and outside a transaction."""

    def look() -> tuple[int, object, object]:
        other = wrapper(connection.alias)
        pid = borrow(other)
        return pid, DRIVER.status(other.connection), other.get_autocommit()

    pid, status, autocommit = in_thread(look)
    assert status is TransactionStatus.IDLE
    assert autocommit is True
    assert pid > 0


def test_an_open_transaction_is_rolled_back_and_the_connection_kept(
    databases: Databases, connection: PooledWrapper
) -> None:
    first = borrow(connection)
    connection.set_autocommit(False)
    write(connection)
    connection.close()
    assert notes(databases) == 0
    assert_clean(connection)
    assert borrow(connection) == first
    assert pool_of(connection).get_stats()["returns_bad"] == 0


def test_a_failed_transaction_is_rolled_back_too(
    databases: Databases, connection: PooledWrapper
) -> None:
    first = borrow(connection)
    connection.set_autocommit(False)
    write(connection)
    with pytest.raises(ProgrammingError):
        value(connection, "SELECT * FROM no_such_table")
    connection.close()
    assert_clean(connection)
    assert borrow(connection) == first
    assert notes(databases) == 0


def test_autocommit_left_off_is_on_for_the_next_borrower(connection: PooledWrapper) -> None:
    connection.set_autocommit(False)
    connection.close()
    assert_clean(connection)
    assert connection.get_autocommit()


def test_autocommit_left_off_gives_the_connection_back_at_the_end_of_a_request(
    connection: PooledWrapper,
) -> None:
    connection.settings_dict["CONN_MAX_AGE"] = None
    borrow(connection)
    connection.set_autocommit(False)
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is None
    assert_clean(connection)


def test_close_inside_atomic_rolls_back_and_forbids_queries_until_its_end(
    databases: Databases, connection: PooledWrapper
) -> None:
    with transaction.atomic(using=connection.alias):
        write(connection)
        connection.close()
        assert connection.closed_in_transaction
        assert connection.needs_rollback
        with pytest.raises((ProgrammingError, InterfaceError)):
            value(connection, "SELECT 1")
    assert not connection.in_atomic_block
    assert notes(databases) == 0
    assert_clean(connection)
    assert value(connection, "SELECT 1") == 1


def test_close_inside_a_nested_atomic_ends_the_outer_one_too(
    databases: Databases, connection: PooledWrapper
) -> None:
    with transaction.atomic(using=connection.alias):
        write(connection)
        with transaction.atomic(using=connection.alias):
            write(connection)
            connection.close()
    assert notes(databases) == 0
    with transaction.atomic(using=connection.alias):
        write(connection)
    assert notes(databases) == 1


def test_close_inside_atomic_behaves_as_without_a_pool(databases: Databases) -> None:
    def story(connection: PooledWrapper) -> list[object]:
        said: list[object] = []
        try:
            with transaction.atomic(using=connection.alias):
                borrow(connection)
                connection.close()
                said += [connection.closed_in_transaction, connection.in_atomic_block]
                connection.close()
                with pytest.raises(Error):
                    value(connection, "SELECT 1")
        except Error as error:
            said.append(type(error))
        said += [connection.connection, connection.in_atomic_block, value(connection, "SELECT 1")]
        return said

    assert story(databases.add()) == story(databases.add(False))


def test_the_session_ending_inside_atomic_does_not_hurt_the_next_one(
    databases: Databases, connection: PooledWrapper
) -> None:
    @transaction.atomic(using=connection.alias)
    def interrupted() -> None:
        write(connection)
        databases.server.terminate_backends("tests")
        write(connection)

    with pytest.raises(Error):
        interrupted()
    with transaction.atomic(using=connection.alias):
        write(connection)
    assert notes(databases) == 1


@pytest.mark.parametrize("release", ["request", "transaction"])
@pytest.mark.parametrize("fails", [True, False])
def test_to_leave_atomic_on_a_broken_connection_borrows_no_other(
    databases: Databases, release: str, fails: bool
) -> None:
    """Django switches autocommit on at the end, for which it would connect."""
    connection = databases.add({"max_size": 1, "timeout": 5, "release": release})
    pool, ran, requests = pool_of(connection), [], []

    def work() -> None:
        with transaction.atomic(using=connection.alias):
            value(connection, "SELECT 1")
            requests.append(pool.get_stats()["requests_num"])
            transaction.on_commit(lambda: ran.append(1), using=connection.alias)
            databases.server.terminate_backends("tests")
            if fails:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError if fails else Error):
        work()
    assert connection.connection is None
    assert [pool.get_stats()["requests_num"]] == requests
    assert connection.get_autocommit()
    with transaction.atomic(using=connection.alias):
        assert value(connection, "SELECT 1") == 1
    assert value(connection, "SELECT 1") == 1
    assert ran == []


@pytest.mark.parametrize("release", ["request", "transaction"])
def test_an_outage_does_not_hide_what_ended_a_transaction(release: str) -> None:
    """P101 would come after the pool's whole `timeout`, in the place of the statement's error."""
    with PostgresServer() as server:
        server.create_database("tests")
        databases = Databases(server)
        connection = databases.add({"max_size": 1, "timeout": 5, "release": release})

        def work() -> None:
            with transaction.atomic(using=connection.alias):
                value(connection, "SELECT 1")
                server.stop("fast")
                value(connection, "SELECT 2")

        try:
            began = time.monotonic()
            with pytest.raises(Error) as caught:
                work()
            assert "P101" not in str(caught.value)
            assert time.monotonic() - began < 4
        finally:
            connection.close()
            connection.close_pool()
            databases.remove()


@pytest.mark.parametrize("pool", [{}, {"release": "transaction"}, False])
def test_set_autocommit_connects_a_wrapper_that_has_not_been_used(
    databases: Databases, pool: Any
) -> None:
    """As in stock: it is how some see whether the database is there."""
    connection = databases.add(pool)
    with mock.patch.object(connection, "connect", wraps=connection.connect) as connect:
        connection.set_autocommit(True)
    assert connect.call_count == 1
    assert connection.autocommit


@pytest.mark.parametrize("pool", [{}, {"release": "transaction"}])
def test_a_loan_that_was_closed_without_autocommit_leaves_nothing_of_that(
    databases: Databases, pool: dict[str, Any]
) -> None:
    connection = databases.add(pool)
    connection.set_autocommit(False)
    value(connection, "SELECT 1")
    connection.close()
    connection.set_autocommit(True)
    assert connection.connection is None
    assert value(connection, "SELECT 1") == 1
    assert connection.get_autocommit()


def test_hooks_of_a_transaction_that_was_closed_never_run(connection: PooledWrapper) -> None:
    ran: list[int] = []
    with transaction.atomic(using=connection.alias):
        borrow(connection)
        transaction.on_commit(lambda: ran.append(1), using=connection.alias)
        connection.close()
    with transaction.atomic(using=connection.alias):
        transaction.on_commit(lambda: ran.append(2), using=connection.alias)
        value(connection, "SELECT 1")
    assert ran == [2]


def test_a_durable_and_a_nested_atomic_work_over_two_loans(
    databases: Databases, connection: PooledWrapper
) -> None:
    @transaction.atomic(using=connection.alias)
    def undone() -> None:
        write(connection)
        raise ZeroDivisionError

    for expected in (1, 2):
        with transaction.atomic(using=connection.alias, durable=True):
            write(connection)
            with pytest.raises(ZeroDivisionError):
                undone()
        assert notes(databases) == expected
        connection.close()


def test_a_server_side_cursor_that_was_not_exhausted_does_not_hurt_the_next_borrower(
    connection: PooledWrapper,
) -> None:
    first = borrow(connection)
    with transaction.atomic(using=connection.alias):
        cursor = connection.chunked_cursor()
        cursor.execute("SELECT generate_series(1, 100000)")
        cursor.fetchmany(10)
        cursor.close()
    connection.close()
    assert_clean(connection)
    assert borrow(connection) == first


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("withhold", [False, True])
def test_named_cursors_that_nobody_closes_go_with_their_rows(
    connection: PooledWrapper, withhold: bool
) -> None:
    """They were kept for the loan: 350 MB after 2,000 of them, stock's stays at 67 MB."""
    borrow(connection)
    gone = []
    for count in range(3):
        with transaction.atomic(using=connection.alias):
            cursor = connection.connection.cursor(name=f"reader {count}", withhold=withhold)
            cursor.execute("SELECT generate_series(1, 100)")
            assert len(cursor.fetchmany(10)) == 10
            gone.append(weakref.ref(cursor))
            del cursor
    assert [cursor() for cursor in gone] == [None, None, None]
    open_ones = "SELECT count(*) FROM pg_cursors WHERE name <> ''"
    assert value(connection, open_ones) == (3 if withhold else 0)
    connection.close()
    assert value(connection, open_ones) == 0


def test_named_cursors_that_were_closed_cost_no_reset(
    connection: PooledWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        cursor = connection.chunked_cursor()
        cursor.execute("SELECT generate_series(1, 100)")
        assert len(cursor.fetchmany(10)) == 10
        cursor.close()
        del cursor
    monkeypatch.setattr(DRIVER, "reset", None)
    connection.close()
    assert value(connection, "SELECT 1") == 1
    assert pool_of(connection).get_stats()["returns_bad"] == 0


def test_close_all_gives_back_what_every_alias_has(databases: Databases) -> None:
    wrappers = [databases.add(), databases.add(), databases.add(False)]
    for each in wrappers:
        borrow(each)
    connections.close_all()
    assert [each.connection for each in wrappers] == [None, None, None]
    assert [pool_of(each).snapshot().count("idle") for each in wrappers[:2]] == [1, 1]
