"""Ten times more requests than the pool can serve: as many are served as ever. PAINS 16, 18."""

import contextlib
import threading
import time
from dataclasses import dataclass

import pytest
from django.db import OperationalError

from benchmarks import command, overload
from benchmarks.figures import percentile
from benchmarks.peers import OURS, named
from benchmarks.tables import ERROR, WIDTH
from benchmarks.tasks.overload import Outcome, offer
from devtools.proxy import TcpProxy
from django_psycopg_pooled.pool.pool import Pool
from tests.server.databases import Databases
from tests.server.support import Call, assert_adds_up, fill, pool_of, value, wrapper

SIZE = 4
SERVICE_S = 0.02
TIMEOUT_S = 0.3
MAX_WAITING = 8
THREADS = 60
CAPACITY_FOR_S, OVERLOAD_FOR_S = 1.5, 6
CROWD = 500


@dataclass(frozen=True)
class Run:
    """The same pool, busy and overloaded."""

    pool: Pool
    capacity: float  # requests a second
    overload: Outcome

    @property
    def goodput(self) -> float:
        """Requests served a second."""
        return len(self.overload.served_ns) / self.overload.seconds

    def __str__(self) -> str:
        one = self.overload
        served, refused = (
            f"{percentile(times, 0.5) / 1e6:.1f} ms (p99 {percentile(times, 0.99) / 1e6:.1f})"
            for times in (one.served_ns, one.refused_ns or [0])
        )
        return (
            f"capacity {self.capacity:.0f}/s, offered {one.offered / one.seconds:.0f}/s; served"
            f" {self.goodput:.0f}/s in {served}; refused {len(one.refused_ns)} in {refused};"
            f" late {len(one.late_ns)}"
        )


@pytest.fixture
def run(databases: Databases) -> Run:
    """First as many clients as connections, then ten times what they were served."""
    options = {"max_size": SIZE, "timeout": TIMEOUT_S, "max_waiting": MAX_WAITING}
    connection = databases.add({**options, "timeout": 20})
    alias, pool = connection.alias, pool_of(connection)
    fill(pool, SIZE)

    def request() -> None:
        try:
            value(wrapper(alias), "SELECT 1 FROM pg_sleep(%s)", str(SERVICE_S))
        finally:
            wrapper(alias).close()

    busy = offer(SIZE, 0, CAPACITY_FOR_S, request)
    capacity = len(busy.served_ns) / busy.seconds
    pool.configure(timeout=TIMEOUT_S)
    run = Run(pool, capacity, offer(THREADS, 10 * capacity, OVERLOAD_FOR_S, request))
    print(run)
    return run


def test_an_overloaded_pool_serves_as_many_as_ever_and_refuses_the_rest_at_once(run: Run) -> None:
    outcome = run.overload
    assert outcome.other == []
    assert outcome.offered > 4 * run.capacity * outcome.seconds, "this machine is too busy"
    assert run.goodput >= 0.8 * run.capacity
    bound = 1.5 * (TIMEOUT_S + SERVICE_S)
    assert percentile(outcome.served_ns, 0.99) / 1e9 <= bound
    assert len(outcome.refused_ns) > len(outcome.served_ns)
    assert percentile(outcome.refused_ns, 0.5) / 1e9 < 0.05
    # No slot is lost, and no place in the queue.
    assert_adds_up(run.pool)
    assert len(set(fill(run.pool, SIZE))) == SIZE
    stats = run.pool.get_stats()
    assert stats["requests_waiting"] == 0
    assert stats["requests_errors"] == len(outcome.refused_ns) + len(outcome.late_ns)
    assert stats["reclaimed"] == 0


def test_the_benchmark_tells_what_became_of_the_requests() -> None:
    with command.server() as server:
        report = overload.measure(server, command.Run(peers=named([OURS]), quick=True))
    for table in report.tables:
        for row in table.rows:
            assert ERROR not in row, row
            assert row["goodput"], row
    assert report.tables[0].rows[0]["refused_ms"]
    assert all(len(line) <= WIDTH for line in report.text().splitlines())


def crowd(alias: str, sql: str) -> list[float]:
    """CROWD threads ask at once; the seconds that each waited in vain, 0 for who was served."""
    together = threading.Barrier(CROWD)

    def ask() -> float:
        together.wait(60)
        began = time.perf_counter()
        with contextlib.suppress(OperationalError):
            value(wrapper(alias), sql)
            wrapper(alias).close()
            return 0.0
        return time.perf_counter() - began

    return [call.outcome() for call in [Call(ask) for _ in range(CROWD)]]


def test_no_crowd_exceeds_the_maximum_while_connects_are_slow_and_no_wait_its_timeout(
    databases: Databases,
) -> None:
    """PAINS 16: jneight/django-db-geventpool#70, #96."""
    with TcpProxy(databases.server.host, databases.server.port, connect_delay_s=0.15) as proxy:
        connection = databases.add(
            {"max_size": SIZE, "timeout": 25}, HOST=proxy.host, PORT=proxy.port
        )
        pool = pool_of(connection)
        assert crowd(connection.alias, "SELECT pg_sleep(0.001)") == [0.0] * CROWD
        assert 0 < proxy.accepted <= SIZE
        pool.configure(timeout=1)
        waits = crowd(connection.alias, "SELECT pg_sleep(0.4)")
        in_vain = sorted(wait for wait in waits if wait)
        print(f"{len(in_vain)} waited in vain, {in_vain[0]:.2f} to {in_vain[-1]:.2f} s")
        assert len(in_vain) >= 0.9 * CROWD
        assert in_vain[0] >= 1
        assert in_vain[-1] < 10  # they write their errors at once, on two cores
        assert_adds_up(pool)
        assert pool.get_stats()["requests_waiting"] == 0
        connection.close()
        pool.close()
