"""Statements one after the other in one thread, on one connection."""

import random
import time
from collections.abc import Callable
from typing import Any

from django.db import connection

from benchmarks.tasks.prepared.workloads import WORKLOADS, skewed


def run(name: str, level: str, first: int, operations: int) -> int:
    """Nanoseconds for *operations* of a workload, those numbered from *first* on.

    level   "ORM": with building and compiling the query, and making objects; "SQL": without
    """
    workload = WORKLOADS[name]
    numbers = range(first, first + operations)
    if level == "ORM":
        return _timed([(workload.orm, (number,)) for number in numbers])
    return _timed([(_execute, workload.statement(number)) for number in numbers])


def _timed(calls: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> int:
    began = time.perf_counter_ns()
    for function, args in calls:
        function(*args)
    return time.perf_counter_ns() - began


def _execute(sql: str, params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        if cursor.description is not None:
            cursor.fetchall()


def run_skewed(calls: int, rare_share: float) -> list[int]:
    """Nanoseconds of each of *calls*, of which about *rare_share* ask for the rare value."""
    connection.ensure_connection()
    chance = random.Random(4711)
    times = []
    for _ in range(calls):
        status = "pending" if chance.random() < rare_share else "done"
        began = time.perf_counter_ns()
        skewed(status)
        times.append(time.perf_counter_ns() - began)
    return times
