"""A server that cannot be reached, or not now: swallowed packets, slow names, no free slot.

PAINS 23: firewalls and NAT forget idle connections and tell nobody.
"""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from devtools.postgres import PostgresServer
from devtools.proxy import CHUNK, TcpProxy
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases, looked_after
from tests.server.support import (
    DATABASE,
    Call,
    borrow,
    eventually,
    fill,
    lent_to_a_thread,
    pool_of,
    require,
    run_script,
    value,
    wrapper,
)

CHECK_TIMEOUT_S = 0.5
# What a request may take when its connection turns out to be swallowed; measured: 0.52 s.
SERVED_S = CHECK_TIMEOUT_S + 1.0


class Firewall(TcpProxy):
    """Swallows what comes over the connections that it is told to forget; new ones pass."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(server.host, server.port)
        self._forgotten: set[asyncio.StreamWriter] = set()

    def forget(self) -> None:
        """Forget all connections that there are. Nobody is told."""
        self._do(lambda: self._forgotten.update(self._sockets))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float = 0.0
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                if sink not in self._forgotten:
                    sink.write(chunk)
                    await sink.drain()


@pytest.fixture
def firewall(databases: Databases) -> Iterator[Firewall]:
    """Stands before the shared server; its connections end before they are looked for there."""
    with Firewall(databases.server) as firewall:
        yield firewall


def behind(firewall: Firewall, databases: Databases, **pool: Any) -> PooledWrapper:
    pool = {"check_timeout": CHECK_TIMEOUT_S, "min_size": 0, "max_size": 4, **pool}
    return databases.add(pool, HOST=firewall.host, PORT=str(firewall.port))


def served_within(connection: PooledWrapper, seconds: float) -> None:
    began = time.monotonic()
    assert value(connection, "SELECT 1") == 1
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_host_that_accepts_and_says_nothing_leaves_a_request_time_for_the_next(
    databases: Databases, num_workers: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        connection = databases.add(
            {"timeout": 6, "num_workers": num_workers},
            HOST=f"127.0.0.1,{databases.server.host}",
            PORT=f"{port},{databases.server.port}",
        )
        served_within(connection, 6.0)


@pytest.mark.parametrize("count", [1, 4])
def test_a_connection_that_a_firewall_forgot_delays_one_request_and_fails_none(
    databases: Databases, firewall: Firewall, count: int
) -> None:
    connection = behind(firewall, databases, check_idle=0)
    old = fill(pool_of(connection), count)
    firewall.forget()
    # However many were forgotten: one that does not answer speaks for those that idled as long.
    served_within(connection, SERVED_S)
    assert borrow(connection) not in old
    connection.close()
    served_within(connection, CHECK_TIMEOUT_S)
    assert pool_of(connection).get_stats()["requests_errors"] == 0


def test_the_check_of_what_idled_for_long_ends_too(
    databases: Databases, firewall: Firewall
) -> None:
    connection = behind(firewall, databases, check_idle=0.1)
    pool = pool_of(connection)
    old = fill(pool, 1)
    firewall.forget()
    eventually(lambda: pool.snapshot().connections[0].in_state_s > 0.11)
    served_within(connection, SERVED_S)
    assert borrow(connection) not in old


def test_a_rollback_that_is_swallowed_ends_and_costs_that_connection_alone(
    databases: Databases, firewall: Firewall
) -> None:
    connection = behind(firewall, databases)
    old = borrow(connection)
    connection.set_autocommit(False)
    assert value(connection, "SELECT 1") == 1
    firewall.forget()
    began = time.monotonic()
    connection.close()
    assert time.monotonic() - began < SERVED_S
    served_within(connection, SERVED_S)
    assert borrow(connection) != old


def test_a_keepalive_finds_forgotten_connections_before_a_request_does(
    databases: Databases, firewall: Firewall
) -> None:
    connection = behind(firewall, databases, check_timeout=0.2, keepalive=0.2)
    pool = pool_of(connection)
    fill(pool, 2)
    firewall.forget()
    eventually(lambda: pool.get_stats()["connections_lost"] == 2)
    served_within(connection, 0.2)


def test_a_server_that_swallows_everything_costs_the_next_one_its_connect_timeout(
    databases: Databases,
) -> None:
    """The least that libpq takes for connect_timeout is 2 s."""
    server = databases.server
    with TcpProxy(server.host, server.port) as proxy:
        connection = databases.add(
            {"check_idle": 0, "check_timeout": CHECK_TIMEOUT_S},
            HOST=f"{proxy.host},{server.host}", PORT=f"{proxy.port},{server.port}",
            options={"connect_timeout": 2},
        )  # fmt: skip
        assert value(connection, "SELECT inet_client_port()") is not None
        assert proxy.open == 1
        connection.close()
        proxy.blackhole()
        served_within(connection, SERVED_S + 2.0)
        proxy.drop()
        connection.close()


def options_of(connection: PooledWrapper) -> list[int]:
    """What the kernel was told about the borrowed connection's socket."""
    names = ("SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    connection.ensure_connection()
    with socket.socket(fileno=socket.dup(connection.connection.fileno())) as copy:
        return [
            copy.getsockopt(
                socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP,
                getattr(socket, name),
            )
            for name in names
        ]


def test_the_kernel_gives_a_silent_peer_up_within_a_minute(databases: Databases) -> None:
    assert options_of(databases.add()) == [1, 30, 10, 3, 10_000]


def test_the_users_own_values_for_the_kernel_win(databases: Databases) -> None:
    mine = {"keepalives_idle": 7, "keepalives_interval": 5, "keepalives_count": 2}
    connection = databases.add(options={**mine, "tcp_user_timeout": 4000})
    assert options_of(connection) == [1, 7, 5, 2, 4000]
    assert options_of(databases.add(options={"keepalives": 0}))[0] == 0


SLOW_S = 1.5
# Before the C library's own, which both drivers and Python itself call.
RESOLVER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
typedef int resolver(
    const char *, const char *, const struct addrinfo *, struct addrinfo **);
int getaddrinfo(const char *node, const char *service,
                const struct addrinfo *hints, struct addrinfo **found)
{
    resolver *next = (resolver *) dlsym(RTLD_NEXT, "getaddrinfo");
    if (node && !strcmp(node, "slow.test")) {
        usleep(1500000);
        node = "127.0.0.1";
    }
    return next(node, service, hints, found);
}
"""


@pytest.fixture
def slow_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In programs started from here on, the address of slow.test is found after SLOW_S."""
    require(shutil.which("gcc"), "a slow resolver needs gcc: 'apt-get install gcc libc6-dev'.")
    (tmp_path / "resolver.c").write_text(RESOLVER)
    command = ["gcc", "-shared", "-fPIC", "-o", "resolver.so", "resolver.c", "-ldl"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "resolver.so"))


SLOW_NAME = """
import threading, time
from django.db import OperationalError

def timed(work):
    began = time.monotonic()
    try:
        work()
        refused = ""
    except OperationalError as error:
        refused = str(error)
    finally:
        connection.close()
    return time.monotonic() - began, refused

def ask():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")

hasty, refused = timed(ask)
connection.pool.configure(timeout=20)
first, _ = timed(ask)
holder = connection.pool.checkout()
other = threading.Thread(target=lambda: results.append(timed(ask)[0]))
results = []
other.start()
while not connection.pool.snapshot().count("opening"):
    time.sleep(0.001)
connection.pool.checkin(holder)
# Now a connect is under way, and there is an idle connection as well.
quick = [timed(ask)[0] for _ in range(100)]
other.join()
print(json.dumps([hasty, refused, first, max(quick), results[0]]))
"""


def test_a_slow_name_delays_nobody_beyond_his_own_deadline(
    databases: Databases, slow_names: None
) -> None:
    entry = databases.settings({"timeout": 0.5, "min_size": 0, "max_size": 2}, HOST="slow.test")
    done = run_script(SLOW_NAME, {"default": entry})
    assert done.returncode == 0, done.stderr
    hasty, refused, first, quickest_but_one, other = json.loads(done.stdout)
    assert 0.5 <= hasty < SLOW_S
    assert "P101" in refused
    assert first > SLOW_S / 2  # the connect that the hasty one began may have served it
    # Lent at once while the other's connect waits for the name; which may be served by a return.
    assert quickest_but_one < 0.5
    assert other < SLOW_S + 1.0


@pytest.fixture(scope="module")
def small_server() -> Iterator[PostgresServer]:
    """A server with three places for those who are not its superuser."""
    with PostgresServer(options={"max_connections": 6, "max_wal_senders": 0}) as server:
        server.create_database(DATABASE)
        server.psql(f"CREATE ROLE guest LOGIN PASSWORD '{server.password}'")
        yield server


@pytest.fixture
def guests(small_server: PostgresServer) -> Iterator[Databases]:
    yield from looked_after(Databases(small_server))


def as_guest(databases: Databases, **pool: Any) -> PooledWrapper:
    return databases.add({"min_size": 0, **pool}, USER="guest")


FULL = "remaining connection slots are reserved"


def test_requests_share_the_connections_that_a_full_server_grants(guests: Databases) -> None:
    connection = as_guest(guests, max_size=6, timeout=20)
    alias = connection.alias
    borrow(connection)  # before the first success a failed connect speaks for all
    connection.close()
    requests = [Call(lambda: value(wrapper(alias), "SELECT pg_sleep(0.1)")) for _ in range(6)]
    for request in requests:
        request.join(30)
    for request in requests:
        request.outcome()
    stats = pool_of(connection).get_stats()
    assert stats["requests_errors"] == 0
    assert stats["connections_errors"] > 0
    assert stats["pool_size"] == 3


@contextlib.contextmanager
def server_full_of_others(guests: Databases, connection: PooledWrapper) -> Iterator[PooledWrapper]:
    """Others take all places; *connection* has been connected before, and its pool is empty."""
    others = as_guest(guests, max_size=3, name="others")
    borrow(connection)
    connection.close()
    pool_of(connection).drain()
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(lent_to_a_thread(others.alias))
        yield others
    others.close()


# Measured: 1.1 s after the place came free, the longest pause between two tries.
PLACE_FOUND_S = 3.0


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_request_is_served_when_a_full_server_has_a_place_again(
    guests: Databases, num_workers: int
) -> None:
    connection = as_guest(guests, max_size=1, num_workers=num_workers, timeout=20)
    pool = pool_of(connection)
    with server_full_of_others(guests, connection) as others:
        request = Call(lambda: value(wrapper(connection.alias), "SELECT 1"))
        eventually(lambda: pool.get_stats()["connections_errors"] >= 3)
        pool_of(others).drain()
    began = time.monotonic()
    assert request.outcome() == 1
    assert time.monotonic() - began < PLACE_FOUND_S


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_timeout_for_want_of_a_place_has_the_servers_words(
    guests: Databases, num_workers: int
) -> None:
    connection = as_guest(guests, max_size=1, num_workers=num_workers, timeout=0.4)
    with server_full_of_others(guests, connection):
        began = time.monotonic()
        with pytest.raises(OperationalError) as raised:
            connection.ensure_connection()
        assert time.monotonic() - began < 2.0
    assert isinstance(raised.value.__cause__, DRIVER.PoolTimeout)
    assert "P101" in str(raised.value)
    assert FULL in str(raised.value)


def test_a_first_request_to_a_full_server_fails_at_once_in_the_servers_words(
    guests: Databases,
) -> None:
    connection = as_guest(guests, timeout=20)
    others = as_guest(guests, max_size=3, name="others")
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(lent_to_a_thread(others.alias))
        began = time.monotonic()
        with pytest.raises(OperationalError, match=FULL):
            connection.ensure_connection()
        assert time.monotonic() - began < 5.0
