"""Connections and cursors are had with fewer questions than stock asks: what those guard holds."""

import asyncio
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import close_old_connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError, InterfaceError, OperationalError
from django.test import override_settings

from django_psycopg_pooled.errors import NotBorrowed
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import borrow, in_thread, pool_of, value, wrapper

NOON = "SELECT '2026-07-01 12:00:00+00'::timestamptz"


# ---- async code


def in_a_loop(call: Callable[[], Any]) -> Any:
    """Call it where a loop runs, as an async view would by mistake."""

    async def mistake() -> Any:
        return call()

    return asyncio.run(mistake())


def close_cursor(cursor: Any) -> None:
    cursor.close()


GUARDED: dict[str, Callable[[PooledWrapper], object]] = {
    "cursor": lambda connection: close_cursor(connection.cursor()),
    "chunked_cursor": lambda connection: close_cursor(connection.chunked_cursor()),
    "ensure_connection": lambda connection: connection.ensure_connection(),
    "close": lambda connection: connection.close(),
    "get_new_connection": lambda connection: pool_of(connection).putconn(
        connection.get_new_connection({})
    ),
}


@pytest.mark.parametrize("release", ["request", "transaction"])
@pytest.mark.parametrize(
    "name", ["cursor", "chunked_cursor", "ensure_connection", "get_new_connection"]
)
def test_async_code_is_refused_before_it_borrows(
    databases: Databases, release: str, name: str
) -> None:
    connection = databases.add({"release": release})
    with pytest.raises(SynchronousOnlyOperation, match="from an async context"):
        in_a_loop(lambda: GUARDED[name](connection))
    assert connection.connection is None
    assert pool_of(connection).get_stats()["requests_num"] == 0
    assert value(connection, "SELECT 1") == 1


@pytest.mark.parametrize("name", [name for name in GUARDED if name != "ensure_connection"])
def test_async_code_is_refused_what_was_borrowed_by_other_code(
    databases: Databases, name: str
) -> None:
    connection = databases.add()
    first = borrow(connection)
    with pytest.raises(SynchronousOnlyOperation):
        in_a_loop(lambda: GUARDED[name](connection))
    assert pool_of(connection).snapshot().count("lent") == 1
    assert value(connection, "SELECT pg_backend_pid()") == first


@pytest.mark.parametrize("name", GUARDED)
def test_async_code_passes_where_the_environment_allows_it(
    databases: Databases, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    connection = databases.add()
    if name != "cursor":
        borrow(connection)
    in_a_loop(lambda: GUARDED[name](connection))
    assert in_a_loop(lambda: value(connection, "SELECT 1")) == 1
    in_a_loop(connection.close)
    assert pool_of(connection).snapshot().count("lent") == 0


# ---- what others put in the place of Django's methods


def test_a_cursor_asked_for_past_cursor_is_refused_to_async_code_too(databases: Databases) -> None:
    connection = databases.add()
    borrow(connection)
    with pytest.raises(SynchronousOnlyOperation):
        in_a_loop(connection.create_cursor)
    close_cursor(connection.create_cursor())


def test_a_subclass_is_asked_for_its_own_connection_before_each_cursor(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = databases.add()
    value(connection, "SELECT 1")  # Django looks at the server's version once, with a cursor
    connection.close()
    calls = []

    class Careful(type(connection)):  # type: ignore[misc]
        def ensure_connection(self) -> None:
            calls.append(self.connection is None)
            super().ensure_connection()

    monkeypatch.setattr(connection, "__class__", Careful)
    for _ in range(2):
        assert value(connection, "SELECT 1") == 1
    assert calls == [True, False]


@pytest.mark.parametrize("method", ["cursor", "ensure_connection"])
def test_what_stands_in_a_methods_place_is_called_each_time(
    databases: Databases, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = databases.add()
    borrow(connection)  # the first time Django asks for the server's version, by cursors of its own
    connection.close()
    called: list[object] = []
    stock = getattr(BaseDatabaseWrapper, method)

    def theirs(self: Any) -> Any:
        called.append(self)
        return stock(self)

    with monkeypatch.context() as patched:
        patched.setattr(BaseDatabaseWrapper, method, theirs)
        for _ in range(2):  # once without a connection, once with
            assert value(connection, "SELECT 1") == 1
        assert called == [connection, connection]
    assert value(connection, "SELECT 1") == 1
    assert len(called) == 2


@pytest.mark.parametrize("release", ["request", "transaction"])
@pytest.mark.parametrize("method", ["cursor", "ensure_connection"])
def test_what_stands_in_a_methods_place_may_call_what_the_connection_had_before(
    databases: Databases, method: str, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Django's own tests of assertNumQueries() do."""
    connection = databases.add({"release": release})
    borrow(connection)
    connection.close()
    real = getattr(connection, method)
    with mock.patch.object(BaseDatabaseWrapper, method, side_effect=real) as theirs:
        for _ in range(2):
            assert value(connection, "SELECT 1") == 1
    assert theirs.mock_calls == [mock.call(), mock.call()]
    assert value(connection, "SELECT 1") == 1
    assert theirs.call_count == 2


@pytest.mark.parametrize("method", ["cursor", "ensure_connection"])
def test_what_forbids_the_database_does_so(
    databases: Databases, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = databases.add()
    borrow(connection)

    def forbidden(self: Any) -> None:
        raise RuntimeError("no database in this test")

    monkeypatch.setattr(BaseDatabaseWrapper, method, forbidden)
    with pytest.raises(RuntimeError, match="no database in this test"):
        value(connection, "SELECT 1")


# ---- the wrong thread


@pytest.mark.parametrize("name", ["cursor", "close"])
def test_another_thread_is_refused_what_this_one_has_borrowed(
    databases: Databases, name: str
) -> None:
    connection = databases.add()
    first = borrow(connection)
    with pytest.raises(DatabaseError, match="can only be used in that same thread"):
        in_thread(lambda: GUARDED[name](connection))
    assert pool_of(connection).snapshot().count("lent") == 1
    assert value(connection, "SELECT pg_backend_pid()") == first


# ---- the time zone


def test_a_cursor_after_a_change_of_the_time_zone_loads_as_stocks_does(
    databases: Databases,
) -> None:
    """With the connection lent all the while."""
    ours, stock = databases.add(), databases.add(False)

    def noons() -> list[datetime.datetime]:
        found = [value(ours, NOON), value(stock, NOON)]
        assert found[0] == found[1]
        assert found[0].tzinfo == found[1].tzinfo
        return found

    aware = noons()
    assert aware[0].tzinfo is not None
    raw = ours.connection
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        assert noons() == aware
        with override_settings(USE_TZ=False):
            assert noons()[0] == datetime.datetime(2026, 7, 1, 21)
            with override_settings(TIME_ZONE="America/Lima"):
                assert noons()[0] == datetime.datetime(2026, 7, 1, 7)
            assert noons()[0] == datetime.datetime(2026, 7, 1, 21)
        assert noons() == aware
    assert noons() == aware
    assert ours.connection is raw


def test_a_change_of_the_time_zone_in_a_transaction_reaches_its_next_cursor(
    databases: Databases,
) -> None:
    connection = databases.add()
    connection.set_autocommit(False)
    assert value(connection, NOON).tzinfo is not None
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        assert value(connection, NOON) == datetime.datetime(2026, 7, 1, 21)
    assert value(connection, NOON).tzinfo is not None
    connection.rollback()


# ---- a second connection


def test_get_new_connection_is_another_than_the_one_that_is_lent(databases: Databases) -> None:
    connection = databases.add({"max_size": 2})
    first, pool = borrow(connection), pool_of(connection)
    lent = connection.connection
    new = connection.get_new_connection(connection.get_connection_params())
    assert new is not lent
    assert DRIVER.server_pid(new) != first
    assert pool.snapshot().count("lent") == 2
    pool.putconn(new)
    assert (pool.snapshot().count("lent"), pool.snapshot().count("idle")) == (1, 1)
    with pytest.raises(NotBorrowed):
        pool.putconn(new)
    assert connection.connection is lent
    assert value(connection, "SELECT pg_backend_pid()") == first


def test_get_new_connection_without_a_pool_is_stocks(databases: Databases) -> None:
    connection = databases.add(False)
    new = connection.get_new_connection(connection.get_connection_params())
    assert value(connection, "SELECT pg_backend_pid()") != DRIVER.server_pid(new)
    new.close()


# ---- connections that are kept over requests


def kept(databases: Databases, **settings: Any) -> PooledWrapper:
    """A connection that one request has used, and that waits for the next."""
    connection = databases.add(CONN_MAX_AGE=600, **settings)
    borrow(connection)
    close_old_connections()  # request_finished
    assert connection.connection is not None
    return connection


def test_a_kept_connection_that_died_between_requests_is_replaced(databases: Databases) -> None:
    connection = kept(databases, CONN_HEALTH_CHECKS=True)
    dead, first = connection.connection, borrow(connection)
    databases.server.terminate_backends("tests")
    close_old_connections()  # request_started
    assert value(connection, "SELECT pg_backend_pid()") != first
    assert connection.connection is not dead
    assert pool_of(connection).snapshot().count("lent") == 1


def test_a_kept_connection_that_works_is_asked_once_a_request_and_stays(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = kept(databases, CONN_HEALTH_CHECKS=True)
    raw = connection.connection
    asked: list[object] = []
    is_usable = connection.is_usable

    def counted() -> bool:
        asked.append(raw)
        return is_usable()

    monkeypatch.setattr(connection, "is_usable", counted)
    for requests in (1, 2):
        close_old_connections()
        for _ in range(2):
            assert value(connection, "SELECT 1") == 1
        assert len(asked) == requests
    assert connection.connection is raw


def test_without_health_checks_a_kept_connection_that_died_fails_once(
    databases: Databases,
) -> None:
    connection = kept(databases, CONN_HEALTH_CHECKS=False)
    databases.server.terminate_backends("tests")
    close_old_connections()
    with pytest.raises((OperationalError, InterfaceError)):
        value(connection, "SELECT 1")
    close_old_connections()
    assert value(connection, "SELECT 1") == 1


# ---- what connect() leaves a wrapper like

BY_CONNECT = (
    "in_atomic_block", "savepoint_ids", "atomic_blocks", "needs_rollback", "health_check_enabled",
    "health_check_done", "closed_in_transaction", "errors_occurred", "run_on_commit",
    "autocommit", "isolation_level",
)  # fmt: skip


def as_connected(connection: PooledWrapper, mess: dict[str, Any]) -> dict[str, Any]:
    """What connect() makes of a wrapper that was left like this."""
    connection.close()
    vars(connection).update(mess)
    connection.connect()
    found = {name: getattr(connection, name) for name in BY_CONNECT}
    found["is kept"] = connection.close_at is None or connection.close_at > time.monotonic() + 1e5
    found["is kept for ever"] = connection.close_at is None
    found["raw autocommit"] = connection.connection.autocommit
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"CONN_MAX_AGE": 0},
        {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
        {"CONN_MAX_AGE": 1e6, "AUTOCOMMIT": False},
    ],
)
def test_connect_leaves_a_wrapper_as_stocks_does_whatever_it_was_like(
    databases: Databases, settings: dict[str, Any]
) -> None:
    ours, stock = databases.add(**settings), databases.add(False, **settings)
    mess: dict[str, Any] = {
        "in_atomic_block": True,
        "savepoint_ids": ["s1"],
        "atomic_blocks": [object()],
        "needs_rollback": True,
        "health_check_done": False,
        "closed_in_transaction": True,
        "errors_occurred": True,
        "run_on_commit": [(set(), print, False)],
    }
    for part in ({}, mess, {"savepoint_ids": ["s1"]}, {"needs_rollback": True}):
        assert as_connected(ours, dict(part)) == as_connected(stock, dict(part))
    ours.rollback()
    stock.close()


def test_hooks_of_a_loan_do_not_run_in_the_next_one(databases: Databases) -> None:
    connection = databases.add(AUTOCOMMIT=False)
    borrow(connection)
    vars(connection)["run_on_commit"] = [(set(), print, False)]  # as on_commit() leaves it
    connection.close()
    assert connection.run_on_commit == []


# ---- the Lease of the last loan


@pytest.fixture
def shared(databases: Databases) -> Iterator[PooledWrapper]:
    """A wrapper that other threads may use."""
    connection = databases.add()
    connection.inc_thread_sharing()
    yield connection
    connection.close()
    connection.dec_thread_sharing()


def test_a_wrapper_uses_its_lease_again(databases: Databases) -> None:
    connection = databases.add()
    borrow(connection)
    lease = connection._lease
    assert lease is not None
    number = lease.number
    for _ in range(2):
        connection.close()
        assert (connection._lease, lease.ended) == (None, True)
        borrow(connection)
        assert (connection._lease, lease.ended) == (lease, False)
        assert lease.entry.bound
        assert connection.connection is lease.connection
        assert lease.number > number
        number = lease.number


def test_each_thread_has_a_lease_of_its_own(databases: Databases) -> None:
    connection = databases.add()
    borrow(connection)
    lease = connection._lease
    connection.close()

    def another_threads() -> object:
        borrow(wrapper(connection.alias))
        return wrapper(connection.alias)._lease

    assert in_thread(another_threads) not in (None, lease)


def test_with_early_release_no_lease_is_used_again(databases: Databases) -> None:
    connection = databases.add({"release": "transaction"})
    borrow(connection)  # until close()
    lease = connection._lease
    assert lease is not None
    connection.close()
    borrow(connection)
    assert connection._lease not in (None, lease)
    assert lease.ended


def test_a_shared_wrapper_uses_no_lease_again(shared: PooledWrapper) -> None:
    borrow(shared)
    lease = shared._lease
    assert lease is not None
    assert not lease.entry.bound
    shared.close()
    borrow(shared)
    assert shared._lease not in (None, lease)
    assert not shared._lease.entry.bound


def test_a_wrapper_that_is_shared_after_a_loan_does_not_use_its_lease_again(
    databases: Databases,
) -> None:
    connection = databases.add()
    borrow(connection)
    lease = connection._lease
    connection.close()
    connection.inc_thread_sharing()
    borrow(connection)
    assert connection._lease not in (None, lease)
    connection.close()
    connection.dec_thread_sharing()


def test_a_lease_that_could_not_be_had_again_is_forgotten(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = databases.add()
    borrow(connection)
    connection.close()
    pool = pool_of(connection)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pool, "checkout", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection.ensure_connection()
    # Whoever interrupted it may have done so after it was lent: then it must be a lost loan.
    assert connection._spare is None
    assert value(connection, "SELECT 1") == 1
