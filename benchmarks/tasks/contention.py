"""Many threads that share few connections, each operating as often as it is let."""

import time
from typing import Any

from benchmarks.tasks.operation import close, operate
from benchmarks.tasks.together import Start, together

SQL = "SELECT pg_sleep(0.001)"


def contend(threads: int, seconds: float) -> dict[str, Any]:
    """Per thread the nanoseconds of its operations, and how long all of it took."""
    began = time.perf_counter()
    by_thread = together(threads, lambda start: _operate_until(start, seconds))
    return {
        "times_ns": [time_ns for times, _ in by_thread for time_ns in times],
        "served": [len(times) for times, _ in by_thread],
        "seconds": max(seconds for _, seconds in by_thread),
        "whole_s": time.perf_counter() - began,
    }


def _operate_until(start: Start, seconds: float) -> tuple[list[int], float]:
    operate(SQL)  # the thread's first use opens what it needs
    began = start()
    clock = time.perf_counter_ns
    times = []
    while time.perf_counter() - began < seconds:
        before = clock()
        operate(SQL)
        times.append(clock() - before)
    took = time.perf_counter() - began
    close()
    return times, took
