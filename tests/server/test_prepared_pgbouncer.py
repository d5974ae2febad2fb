"""Prepared statements behind a real PgBouncer in transaction mode.

From 1.21 on it keeps those of the protocol apart for each client, if it is told how many; what SQL
prepares it never does, so that psycopg2 is no better off.

PAINS 28: "prepared statement does not exist"; worse, and without an error: another one than meant.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from django.db import Error, connections, transaction

from devtools.pgbouncer import BEFORE_1_20, FROM_1_21, Edition, PgBouncer
from devtools.postgres import PostgresServer
from django_psycopg_pooled import pools
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases, assert_all_came_back
from tests.server.support import Call, eventually, require, value, wrapper

SERVERS, CLIENTS, ROUNDS = 2, 4, 40
COUNT = "SELECT count(*) FROM pg_prepared_statements"


# What PgBouncer there is, and what it is told. 1.24 keeps 200 by default, its forerunners none.
OLD, TOLD, UNTOLD = "before-1.20", "max_prepared_statements", "no-max_prepared_statements"
# The same, and no transaction may have more than one statement.
BY_STATEMENT = "statement mode"
STATEMENT_MODE = [f"{kind}, {BY_STATEMENT}" for kind in (OLD, TOLD, UNTOLD)]
KINDS: dict[str, tuple[Edition, dict[str, Any]]] = {
    OLD: (BEFORE_1_20, {}),
    TOLD: (FROM_1_21, {"max_prepared_statements": 100}),
    UNTOLD: (FROM_1_21, {"max_prepared_statements": 0}),
}
APART = [TOLD] if DRIVER.name == "psycopg" else []
MIXING = [kind for kind in KINDS if kind not in APART]


def behind(kinds: Iterable[str]) -> pytest.MarkDecorator:
    """The test runs behind each of these."""
    return pytest.mark.parametrize("bouncer", kinds, indirect=True)


@pytest.fixture(scope="module")
def bouncer(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[PgBouncer]:
    edition, told = KINDS[request.param.partition(",")[0]]
    if BY_STATEMENT in request.param:
        told = {**told, "pool_mode": "statement"}
    program = edition.program()
    require(program, edition.missing)
    with PgBouncer(server, program=program, default_pool_size=SERVERS, **told) as bouncer:
        yield bouncer


@pytest.fixture
def bounced(bouncer: PgBouncer) -> Iterator["Bounced"]:
    bouncer.restart()  # with sessions in which nobody has prepared anything
    databases = Bounced(bouncer)
    yield databases
    databases.remove()
    for pool in pools.all():
        assert_all_came_back(pool)
    bouncer.stop()
    eventually(lambda: bouncer.server.backends() == 0)


class Bounced(Databases):
    """Aliases that lead through PgBouncer."""

    def __init__(self, bouncer: PgBouncer) -> None:
        super().__init__(bouncer.server)
        self._bouncer = bouncer

    def through(self, **pool: Any) -> PooledWrapper:
        options = {"prepare": "auto", "prepare_threshold": 0, "max_size": CLIENTS, **pool}
        return self.add(options, HOST=self._bouncer.host, PORT=str(self._bouncer.port))


class Clients:
    """Threads with a connection each, that execute two statements and look at every answer."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.served = 0
        self.errors: list[Error] = []

    def run(self, *, atomic: bool) -> None:
        calls = [Call(partial(self._work, number, atomic)) for number in range(CLIENTS)]
        for call in calls:
            call.outcome()

    def _work(self, client: int, atomic: bool) -> None:
        for number in range(ROUNDS):
            try:
                with transaction.atomic(using=self.alias) if atomic else contextlib.nullcontext():
                    self._ask(client, number)
                self.served += 1
            except Error as error:
                self.errors.append(error)

    def _ask(self, client: int, number: int) -> None:
        # In another order in each client, so that names which count up would mean another one.
        texts = ["SELECT %s::int, 'first'", "SELECT %s::int, 'second'", "SELECT %s::int, 'third'"]
        for place in range(3):
            text = texts[(place + client) % 3]
            sent = client * 1000 + number
            with connections[self.alias].cursor() as cursor:
                cursor.execute(text, (sent,))
                assert cursor.fetchall() == [(sent, text.split("'")[1])]


def pool_of(connection: PooledWrapper) -> DatabasePool:
    pool = connection.pool
    assert isinstance(pool, DatabasePool)
    return pool


def hits(connection: PooledWrapper) -> int:
    return sum(each.hits for each in pool_of(connection).prepared())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of prepared statements."""
    return [text for text in caplog.messages if "prepares no statements" in text]


@behind(KINDS)
def test_with_the_option_nothing_is_prepared_by_itself(
    bounced: Bounced, caplog: pytest.LogCaptureFixture
) -> None:
    connection = bounced.through(pooler="pgbouncer", prepare=None)
    clients = Clients(connection.alias)
    clients.run(atomic=False)
    clients.run(atomic=True)
    assert (clients.served, clients.errors) == (2 * CLIENTS * ROUNDS, [])
    assert hits(connection) == 0
    assert pool_of(connection).prepared() == []
    with connection.cursor() as cursor:
        cursor.execute(COUNT)
        assert cursor.fetchone() == (0,)
    assert warnings(caplog) == []


@pytest.mark.skipif(not APART, reason="psycopg2 prepares by SQL")
@behind([TOLD])
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("pooler", ["", "pgbouncer"])
def test_a_pgbouncer_that_keeps_them_apart_serves_prepared_statements(
    bounced: Bounced, caplog: pytest.LogCaptureFixture, pooler: str, atomic: bool
) -> None:
    # Fewer than there are: some are closed.
    connection = bounced.through(prepared_max=2, pooler=pooler)
    clients = Clients(connection.alias)
    clients.run(atomic=atomic)
    assert (clients.served, clients.errors) == (CLIENTS * ROUNDS, [])
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(COUNT)
        assert cursor.fetchone()[0] > 0
    assert hits(connection) > 0
    assert warnings(caplog) == []


@pytest.mark.skipif(not APART, reason="psycopg2 prepares by SQL")
@behind([TOLD])
def test_the_mode_of_one_statement_reaches_no_other_client(bounced: Bounced) -> None:
    sql = "SELECT %s::int + 1"
    connection = bounced.through(prepare="registered", pooler="pgbouncer")
    pool_of(connection).add_prepare_target(sql, plan_cache_mode="force_custom_plan")
    other = bounced.through(prepare=False, pooler="pgbouncer")
    found: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with transaction.atomic(using=other.alias):
                found.add(value(wrapper(other.alias), "SHOW plan_cache_mode"))

    looks = [Call(look) for _ in range(SERVERS)]
    try:
        assert [value(connection, sql, number) for number in range(300)] == [*range(1, 301)]
    finally:
        done.set()
        for call in looks:
            call.outcome()
    assert hits(connection) > 0
    assert found == {"auto"}


@behind(MIXING)
@pytest.mark.parametrize("pooler", ["", "pgbouncer"])
def test_where_clients_are_mixed_no_row_is_wrong_and_autocommit_sees_no_error(
    bounced: Bounced, caplog: pytest.LogCaptureFixture, pooler: str
) -> None:
    connection = bounced.through(pooler=pooler)
    clients = Clients(connection.alias)
    clients.run(atomic=False)
    assert (clients.served, clients.errors) == (CLIENTS * ROUNDS, [])
    [warning] = warnings(caplog)
    assert 'pooler="pgbouncer"' in warning
    assert "PgBouncer >= 1.21" in warning
    before = hits(connection)
    clients.run(atomic=True)
    assert (clients.served, clients.errors) == (2 * CLIENTS * ROUNDS, [])
    assert hits(connection) == before
    assert len(warnings(caplog)) == 1


@behind(MIXING)
def test_without_the_option_the_pooler_is_noticed_before_a_transaction_fails(
    bounced: Bounced, caplog: pytest.LogCaptureFixture
) -> None:
    connection = bounced.through()
    clients = Clients(connection.alias)
    clients.run(atomic=True)
    assert (clients.served, clients.errors) == (CLIENTS * ROUNDS, [])
    clients.run(atomic=False)
    assert (clients.served, clients.errors) == (2 * CLIENTS * ROUNDS, [])
    assert len(warnings(caplog)) == 1
    assert hits(connection) == 0


@behind(MIXING)
def test_a_pool_beside_the_pooler_goes_on_preparing(bounced: Bounced) -> None:
    """The warning is about one alias; the other one is connected to the server itself."""
    behind = bounced.through()
    beside = bounced.add({"prepare": "auto", "prepare_threshold": 0, "max_size": CLIENTS})
    Clients(behind.alias).run(atomic=False)
    direct = Clients(beside.alias)
    direct.run(atomic=True)
    assert direct.errors == []
    assert wrapper(beside.alias).pool is not behind.pool
    assert hits(beside) > 0
    assert sum(each.connections for each in pool_of(beside).prepared()) > 0


@behind(STATEMENT_MODE)
@pytest.mark.parametrize("pooler", ["", "pgbouncer"])
def test_in_statement_mode_no_statement_fails_and_no_connection_is_lost(
    bounced: Bounced, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest, pooler: str
) -> None:
    """PgBouncer ends the connection of whoever begins a transaction there."""
    connection = bounced.through(pooler=pooler)
    clients = Clients(connection.alias)
    clients.run(atomic=False)
    assert (clients.served, clients.errors) == (CLIENTS * ROUNDS, [])
    assert pool_of(connection).get_stats()["connections_lost"] == 0
    apart = request.node.callspec.params["bouncer"].partition(",")[0] in APART
    assert (hits(connection) > 0) is apart
    assert len(warnings(caplog)) == (not apart)
