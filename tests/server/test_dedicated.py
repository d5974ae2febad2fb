"""pool.dedicated(): a connection beside the slots, for LISTEN and the like (PAINS 30)."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devtools.postgres import PostgresServer
from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import Call, eventually, lent_to_a_thread, pool_of, value

NAMED = "application_name = 'line'"
LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT  # whether a child has ended


def execute(raw: Any, sql: str) -> Any:
    """Run *sql* on the driver's connection; the first column of the first row, if any."""
    with raw.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def listen(raw: Any) -> None:
    execute(raw, "SET application_name = 'line'")
    execute(raw, "LISTEN news")


def next_notice(raw: Any, seconds: float = 10.0) -> str:
    """What the next notification says; raises what the driver raises if the connection ends."""
    if DRIVER.name == "psycopg":
        for notice in raw.notifies(timeout=seconds, stop_after=1):
            return str(notice.payload)
        raise AssertionError("no notification")
    deadline = time.monotonic() + seconds
    while not raw.notifies:
        assert select.select([raw], [], [], max(deadline - time.monotonic(), 0))[0], "nothing came"
        raw.poll()
    return str(raw.notifies.pop(0).payload)


@pytest.fixture
def connection(databases: Databases) -> PooledWrapper:
    return databases.add({"max_size": 1, "min_size": 0, "timeout": 5})


def test_it_hears_what_other_sessions_notify(connection: PooledWrapper) -> None:
    with pool_of(connection).dedicated(on_connect=listen) as line:
        for text in ("one", "two"):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify('news', %s)", [text])
            assert next_notice(line.connection) == text


def test_it_takes_no_slot_and_is_in_no_count(connection: PooledWrapper) -> None:
    pool = pool_of(connection)
    with lent_to_a_thread(connection.alias) as busy:
        before = pool.snapshot()
        with pool.dedicated() as line, pool.dedicated() as second:
            pids = {DRIVER.server_pid(line.connection), DRIVER.server_pid(second.connection), busy}
            assert len(pids) == 3
            after = pool.snapshot()
            assert (
                (after.size, after.count("lent")) == (before.size, before.count("lent")) == (1, 1)
            )
            assert pool.get_stats()["requests_num"] == 1
    with pool.dedicated():
        assert value(connection, "SELECT 1") == 1


def test_nobody_else_is_ever_lent_it(connection: PooledWrapper) -> None:
    pool = pool_of(connection)
    with pool.dedicated() as line:
        mine = DRIVER.server_pid(line.connection)
        execute(line.connection, "SELECT pg_advisory_lock(7)")
        for _ in range(3):
            assert value(connection, "SELECT pg_backend_pid()") != mine
            assert value(connection, "SELECT pg_try_advisory_lock(7)") is False
            connection.close()
        assert execute(line.connection, "SELECT 1") == 1


@pytest.mark.parametrize("failing", [False, True])
def test_its_session_ends_with_the_block(
    databases: Databases, connection: PooledWrapper, failing: bool
) -> None:
    def use() -> None:
        with pool_of(connection).dedicated(on_connect=listen):
            assert databases.server.backends(NAMED) == 1
            if failing:
                raise ZeroDivisionError

    if failing:
        with pytest.raises(ZeroDivisionError):
            use()
    else:
        use()
    eventually(lambda: databases.server.backends(NAMED) == 0)


def test_it_is_set_up_as_the_pools_own_connections_are(databases: Databases) -> None:
    connection = databases.add(options={"isolation_level": 4}, TIME_ZONE="Europe/Paris")
    with pool_of(connection).dedicated() as line:
        assert execute(line.connection, "SHOW TimeZone") == "Europe/Paris"
        assert line.connection.autocommit
        assert DRIVER.status(line.connection) is TransactionStatus.IDLE


def test_closing_the_pool_leaves_it_to_its_owner(connection: PooledWrapper) -> None:
    with pool_of(connection).dedicated() as line:
        connection.close_pool()
        assert execute(line.connection, "SELECT 1") == 1


def test_it_may_be_closed_and_opened_again(connection: PooledWrapper) -> None:
    calls: list[int] = []
    hook: Callable[[Any], None] = lambda raw: calls.append(DRIVER.server_pid(raw))  # noqa: E731
    with pool_of(connection).dedicated(hook) as line:
        line.close()
        line.close()
        assert line.connection is None
        line.reconnect()
        assert execute(line.connection, "SELECT pg_backend_pid()") == calls[-1]
    assert len(set(calls)) == 2


def test_a_hook_that_raises_reaches_the_caller_and_leaves_no_session(
    databases: Databases, connection: PooledWrapper
) -> None:
    def refuse(raw: Any) -> None:
        listen(raw)
        raise ZeroDivisionError("mine")

    line = pool_of(connection).dedicated(refuse)
    with pytest.raises(ZeroDivisionError, match="mine"):
        line.__enter__()
    eventually(lambda: databases.server.backends(NAMED) == 0)


def test_a_wrong_password_is_raised_at_once_and_untouched(databases: Databases) -> None:
    connection = databases.add({"min_size": 0, "timeout": 60}, PASSWORD="wrong")
    line = pool_of(connection).dedicated()
    began = time.monotonic()
    with pytest.raises(DRIVER.Error, match="password"):
        line.__enter__()
    with pytest.raises(DRIVER.Error, match="password"):
        line.reconnect()
    assert time.monotonic() - began < 10
    assert line.connection is None


def test_a_child_of_fork_leaves_it_to_the_parent(connection: PooledWrapper) -> None:
    with pool_of(connection).dedicated(on_connect=listen) as line:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                left = line.connection is None
                line.close()
                status = 0 if left else 2
            finally:
                os._exit(status)
        try:
            eventually(lambda: os.waitid(os.P_PID, child, LOOK))
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            raise
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify('news', 'still here')")
        assert next_notice(line.connection) == "still here"


# ---- the server goes


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.create_database("tests")
        yield server


@pytest.fixture
def own(own_server: PostgresServer) -> Iterator[PooledWrapper]:
    if not own_server.running:
        own_server.start()
    databases = Databases(own_server)
    connection = databases.add({"max_size": 1, "min_size": 0, "timeout": 30})
    yield connection
    connection.close()
    connection.close_pool()
    databases.remove()


def notify(server: PostgresServer, text: str) -> None:
    server.psql(f"SELECT pg_notify('news', '{text}')", "tests")


def test_a_listener_survives_a_restart(own_server: PostgresServer, own: PooledWrapper) -> None:
    """PAINS 30: reconnect() calls the hook again, so that it listens again."""
    with pool_of(own).dedicated(on_connect=listen) as line:
        notify(own_server, "before")
        assert next_notice(line.connection) == "before"
        own_server.restart()
        with pytest.raises(DRIVER.Error):
            next_notice(line.connection)
        line.reconnect()
        notify(own_server, "after")
        assert next_notice(line.connection) == "after"
        assert not pool_of(own).snapshot().size


def test_reconnect_waits_for_a_server_that_is_away(
    own_server: PostgresServer, own: PooledWrapper
) -> None:
    with pool_of(own).dedicated(on_connect=listen) as line:
        own_server.stop()
        call = Call(line.reconnect)
        own_server.start()
        call.outcome()
        notify(own_server, "back")
        assert next_notice(line.connection) == "back"


def test_reconnect_gives_up_after_its_timeout_with_the_drivers_words(
    own_server: PostgresServer, own: PooledWrapper
) -> None:
    with pool_of(own).dedicated() as line:
        own_server.stop()
        began = time.monotonic()
        with pytest.raises(DRIVER.Error, match=f"port {own_server.port}"):
            line.reconnect(timeout=0.5)
        assert 0.4 < time.monotonic() - began < 5
        assert line.connection is None
        own_server.start()
        line.reconnect()
        assert execute(line.connection, "SELECT 1") == 1
