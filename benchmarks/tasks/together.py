"""Threads that start their work at the same moment; live for one task."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Start = Callable[[], float]


def together(count: int, body: Callable[[Start], T]) -> list[T]:
    """Run *body* in *count* threads and return what they returned, in no order.

    *body* is given a function that waits for all the others and returns when, on
    time.perf_counter()'s clock, they were let go. An exception of any thread is raised here.
    """
    began: list[float] = []
    barrier = threading.Barrier(count, action=lambda: began.append(time.perf_counter()))
    results: list[T] = []
    errors: list[BaseException] = []

    def start() -> float:
        barrier.wait()
        return began[-1]

    def run() -> None:
        try:
            results.append(body(start))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return results
