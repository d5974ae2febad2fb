"""Passwords that change while the pool runs: of identity services, and rotated by a vault.

PAINS 25: Django fixes the password for the pool's whole life, so every connect after it changed
fails.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections

from devtools.pgbouncer import BEFORE_1_20, FROM_1_21, Edition, PgBouncer
from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import (
    Call,
    borrow,
    eventually,
    fill,
    pool_of,
    require,
    value,
    wrapper,
)

ROLE = "rotating"


class Vault:
    """Knows the password of ROLE, and changes it; a callable for the option `credentials`.

    Guards: `_lock` guards `password`, and its change on the server.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self.calls = 0
        self.rotate()

    def rotate(self) -> None:
        with self._lock:
            self.password = f"secret {next(self._numbers)}"
            self._server.psql(f"ALTER ROLE {ROLE} PASSWORD '{self.password}'")

    def __call__(self) -> str:
        with self._lock:
            self.calls += 1
            return self.password


@pytest.fixture
def vault(databases: Databases) -> Iterator[Vault]:
    databases.server.psql(f"CREATE ROLE {ROLE} LOGIN")
    yield Vault(databases.server)
    databases.server.psql(f"DROP ROLE {ROLE}")


def rotating(databases: Databases, credentials: object, **pool: Any) -> PooledWrapper:
    pool = {"credentials": credentials, "min_size": 0, "max_size": 4, **pool}
    return databases.add(pool, USER=ROLE, PASSWORD="the one in the settings is old")


def test_the_callable_gives_the_password_of_each_connect(
    databases: Databases, vault: Vault
) -> None:
    connection = rotating(databases, vault, max_size=3)
    fill(pool_of(connection), 3)
    assert vault.calls == 3
    assert value(connection, "SELECT current_user") == ROLE


current: Callable[[], object] = str


def from_the_vault() -> object:
    """What a dotted path may name."""
    return current()


def test_a_dotted_path_may_name_the_callable(
    databases: Databases, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.current", vault)
    connection = rotating(databases, f"{__name__}.from_the_vault")
    assert value(connection, "SELECT current_user") == ROLE
    assert vault.calls == 1


def test_a_dict_may_give_the_user_too(databases: Databases, vault: Vault) -> None:
    connection = databases.add(
        {"credentials": lambda: {"user": ROLE, "password": vault(), "application_name": "shop"}}
    )
    assert value(connection, "SELECT current_user || ' ' || current_setting('application_name')") \
        == f"{ROLE} shop"  # fmt: skip


def test_what_the_callable_gave_is_used_again_for_its_time_to_live(
    databases: Databases, vault: Vault
) -> None:
    connection = rotating(databases, vault, max_size=3, credentials_ttl=60)
    fill(pool_of(connection), 3)
    assert vault.calls == 1


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_kept_password_that_is_refused_is_asked_for_again_and_fails_no_request(
    databases: Databases, vault: Vault, num_workers: int
) -> None:
    connection = rotating(databases, vault, credentials_ttl=60, num_workers=num_workers)
    first = borrow(connection)
    connection.close()
    vault.rotate()
    # What is open stays.
    assert borrow(connection) == first
    connection.close()
    assert vault.calls == 1
    pool_of(connection).drain()
    assert borrow(connection) != first
    assert vault.calls == 2
    assert pool_of(connection).get_stats()["requests_errors"] == 0


def test_a_password_that_changes_during_the_connect_is_asked_for_again(
    databases: Databases, vault: Vault
) -> None:
    def late() -> str:
        """The first time what held a moment before."""
        password = vault()
        if vault.calls == 1:
            vault.rotate()
        return password

    connection = rotating(databases, late)
    assert value(connection, "SELECT current_user") == ROLE
    assert vault.calls == 2


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_password_that_stays_wrong_is_asked_for_twice_and_the_request_fails_at_once(
    databases: Databases, vault: Vault, num_workers: int
) -> None:
    calls: list[int] = []

    def wrong() -> str:
        calls.append(1)
        return "hunter2 is wrong"

    connection = rotating(databases, wrong, num_workers=num_workers)
    began = time.monotonic()
    with pytest.raises(OperationalError, match="password authentication failed") as raised:
        connection.ensure_connection()
    assert time.monotonic() - began < 10
    assert len(calls) == 2
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(pool_of(connection)) + pool_of(connection).as_table()


@pytest.fixture(params=[BEFORE_1_20, FROM_1_21], ids=lambda edition: edition.name)
def bouncer(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[PgBouncer]:
    """Asks the server for passwords; tells clients no more than that theirs is wrong."""
    edition: Edition = request.param
    require(edition.program(), edition.missing)
    options = {
        "auth_type": "scram-sha-256",
        "auth_user": server.user,
        "auth_query": "SELECT usename, passwd FROM pg_shadow WHERE usename = $1",
    }
    with PgBouncer(server, program=edition.program(), **options) as bouncer:
        yield bouncer


def rotated(bouncer: PgBouncer, databases: Databases, vault: Vault) -> PooledWrapper:
    """An alias that was let in by the password of before, and must connect anew."""
    options = {"credentials": vault, "credentials_ttl": 3600, "pooler": "pgbouncer"}
    connection = databases.add(
        {**options, "min_size": 0, "timeout": 20},
        USER=ROLE, PASSWORD="old", HOST=bouncer.host, PORT=str(bouncer.port),
    )  # fmt: skip
    assert value(connection, "SELECT current_user") == ROLE
    connection.close()
    pool_of(connection).drain()
    vault.rotate()
    return connection


def test_a_kept_password_that_pgbouncer_refuses_is_asked_for_again_and_fails_no_request(
    databases: Databases, vault: Vault, bouncer: PgBouncer
) -> None:
    connection = rotated(bouncer, databases, vault)
    began = time.monotonic()
    assert value(connection, "SELECT current_user") == ROLE
    assert time.monotonic() - began < 10
    assert vault.calls == 2
    databases.remove()


def test_a_password_that_pgbouncer_goes_on_refusing_fails_the_request_at_once(
    databases: Databases, vault: Vault, bouncer: PgBouncer
) -> None:
    """It is no outage, even if others were let in before."""
    connection = rotated(bouncer, databases, vault)
    vault.password = "wrong"
    began = time.monotonic()
    with pytest.raises(OperationalError, match="SASL authentication failed"):
        connection.ensure_connection()
    assert time.monotonic() - began < 10
    assert vault.calls == 2
    databases.remove()


def test_a_callable_that_raises_fails_the_request_with_its_own_words(databases: Databases) -> None:
    def sealed() -> str:
        raise LookupError("the vault is sealed")

    connection = rotating(databases, sealed)
    with pytest.raises(Exception, match="the vault is sealed"):
        connection.ensure_connection()


def test_a_callable_that_returns_something_else_is_told_so_without_its_value(
    databases: Databases,
) -> None:
    connection = rotating(databases, lambda: b"hunter2")
    with pytest.raises(Exception, match="returned a bytes") as raised:
        connection.ensure_connection()
    assert "hunter2" not in str(raised.value)


ROTATIONS = 12
EVERY_S = 0.5


def test_rotating_the_password_all_the_time_fails_no_request(
    databases: Databases, vault: Vault
) -> None:
    # Young connections, so that connects happen all the time.
    connection = rotating(databases, vault, max_size=4, max_lifetime=0.2, credentials_ttl=3600)
    alias, pool = connection.alias, pool_of(connection)
    ended = threading.Event()

    def ask() -> int:
        served = 0
        while not ended.is_set():
            assert value(wrapper(alias), "SELECT 1") == 1
            connections[alias].close()
            served += 1
        return served

    askers = [Call(ask) for _ in range(4)]
    for _ in range(ROTATIONS):
        vault.rotate()
        # The pace of the rotation, not a wait for something.
        time.sleep(EVERY_S)
    ended.set()
    for asker in askers:
        asker.join(30)
    assert all(asker.outcome() > 0 for asker in askers)
    # Each change was noticed, and cost one call: the kept one is used until it is refused.
    assert vault.calls >= ROTATIONS
    assert pool.get_stats()["connections_num"] > ROTATIONS
    assert pool.get_stats()["requests_errors"] == 0


def test_an_error_of_the_callable_says_whose_it_is(
    databases: Databases, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    def ask_nobody() -> str:
        raise KeyError("no token")

    with pytest.raises(KeyError):
        value(rotating(databases, ask_nobody), "SELECT 1")
    words = "cannot connect: KeyError: 'no token' (raised by the pool's option `credentials`)"
    eventually(lambda: words in caplog.text)  # it is logged after the request has its error
