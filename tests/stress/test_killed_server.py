"""Threads at work on a real server whose backends, and which itself, are killed at random.

The seed is printed with a failure; DPP_STRESS_SEED=N runs the same script of actions again.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import Error, OperationalError, transaction

from devtools.postgres import PostgresServer
from django_psycopg_pooled.pool.pool import Pool
from tests.server.databases import Databases, looked_after
from tests.server.support import DATABASE, pool_of, wrapper
from tests.stress.seeds import seeds
from tests.unit.scripted_pool import audit

THREADS = 8
SECONDS = 6.0


@pytest.fixture
def mortal() -> Iterator[Databases]:
    """Aliases on a server of this test's own, which may be killed."""
    with PostgresServer() as server:
        server.create_database(DATABASE)
        yield from looked_after(Databases(server))


class Work:
    """What the threads do, and what they saw."""

    def __init__(self, alias: str, seed: int) -> None:
        self.alias = alias
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.served = 0
        self.lost = 0  # statements that were in flight when the server was killed
        self.failures: list[BaseException] = []

    def live(self, number: int) -> None:
        mine = random.Random(self.random.random() + number)
        try:
            while not self.stop.is_set():
                self.request(mine)
        except BaseException as error:
            self.failures.append(error)

    def request(self, mine: random.Random) -> None:
        connection = wrapper(self.alias)
        tag = f"{threading.get_ident()}-{mine.random()}"
        try:
            mine.choice([self.read, self.write, self.fail])(connection, tag)
            self.served += 1
        except Error:
            self.lost += 1
        finally:
            connection.close()

    def read(self, connection: object, tag: str) -> None:
        assert self.echo(tag) == tag, "a foreign row"

    def write(self, connection: object, tag: str) -> None:
        with transaction.atomic(using=self.alias):
            assert self.echo(tag) == tag, "a foreign row"
            assert self.echo(tag + "x") == tag + "x", "a foreign row"

    def fail(self, connection: object, tag: str) -> None:
        """A statement that fails, in a transaction that is left open: close() must end it."""
        wrapper(self.alias).set_autocommit(False)
        with wrapper(self.alias).cursor() as cursor, pytest.raises(Error):
            cursor.execute("SELECT 1/0")

    def echo(self, tag: str) -> object:
        with wrapper(self.alias).cursor() as cursor:
            cursor.execute("SELECT %s::text, pg_sleep(0.0005)", [tag])
            return cursor.fetchone()[0]


def _kill_now_and_then(
    server: PostgresServer, mine: random.Random, until: float, pool: Pool
) -> int:
    """Kill one backend, all of them, or the server, until then; how often the server went down."""
    one = (
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname ="
        f" '{DATABASE}' ORDER BY random() LIMIT 1) AS a"
    )
    restarts = 0
    actions: list[Callable[[], object]] = [
        lambda: server.psql(one),
        lambda: server.terminate_backends(DATABASE),
        pool.drain,
    ]
    while time.monotonic() < until:
        time.sleep(mine.random() * 0.2)
        if mine.random() < 0.1 and restarts < 3:
            server.stop(mine.choice(["fast", "immediate"]))
            server.start()
            restarts += 1
        else:
            mine.choice(actions)()
    return restarts


@pytest.mark.parametrize("workers", [3, 0])
@pytest.mark.parametrize("seed", seeds())
def test_only_statements_in_flight_fail_and_no_slot_is_lost(
    mortal: Databases, seed: int, workers: int
) -> None:
    connection = mortal.add(pool={"max_size": 4, "num_workers": workers, "timeout": 20})
    pool = pool_of(connection)
    work = Work(connection.alias, seed)
    threads = [threading.Thread(target=work.live, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        _kill_now_and_then(mortal.server, work.random, time.monotonic() + SECONDS, pool)
    finally:
        work.stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    assert work.failures == []
    assert work.served > 200
    audit(pool)
    facts = pool.snapshot()
    assert facts.count("lent") == 0
    assert facts.count("idle") + facts.count("opening") == facts.size <= 4
    # Whatever happened, all slots can be had, and the next requests meet no dead connection.
    for _ in range(20):
        assert work.echo("after") == "after"
        wrapper(connection.alias).close()
    leases = [pool.checkout() for _ in range(4)]
    for lease in leases:
        pool.checkin(lease)
    audit(pool)


def test_a_server_that_is_killed_between_requests_costs_no_request(mortal: Databases) -> None:
    connection = mortal.add(pool={"max_size": 10, "min_size": 10})
    pool = pool_of(connection)
    work = Work(connection.alias, 0)
    pool.wait()
    for _ in range(5):
        mortal.server.restart()
        try:
            assert work.echo("x") == "x"
        except OperationalError as error:
            pytest.fail(f"a request met a dead connection: {error}")
        finally:
            wrapper(connection.alias).close()
        pool.wait()
    assert pool.get_stats()["connections_lost"] >= 50
