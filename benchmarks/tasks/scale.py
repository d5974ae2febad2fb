"""Our pool alone, with connections to nowhere: what its books cost as they grow."""

import time
from typing import Any

from benchmarks.tasks.together import Start, together
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.testing import ScriptedDriver

SETTLE_S = 0.05

_pools: dict[int, Pool] = {}


def pool_of(connections: int) -> Pool:
    """A pool with so many idle connections, made at its first use."""
    if connections not in _pools:
        driver = ScriptedDriver()
        options = PoolOptions.parse({"min_size": connections, "max_size": connections})
        _pools[connections] = pool = Pool(f"of {connections}", driver.connect, driver, options)
        pool.wait()
    return _pools[connections]


def cycles(connections: int, operations: int) -> float:
    """Nanoseconds of one checkout and checkin, by one thread, all connections idle."""
    pool = pool_of(connections)
    began = time.perf_counter_ns()
    for _ in range(operations):
        pool.checkin(pool.checkout())
    return (time.perf_counter_ns() - began) / operations


def handovers(waiting: int, seconds: float) -> dict[str, Any]:
    """One connection and one thread more than wait for it: how often it changed hands.

    Counted from a while after the start on, when all threads have come to wait.
    """
    pool = pool_of(1)

    def pass_on(start: Start) -> int:
        count_from = start() + SETTLE_S
        end = count_from + seconds
        count = 0
        while (now := time.perf_counter()) < end:
            pool.checkin(pool.checkout())
            count += now >= count_from
        return count

    counts = together(waiting + 1, pass_on)
    return {"us": 1e6 * seconds / sum(counts), "fairness": min(counts) / max(counts)}
