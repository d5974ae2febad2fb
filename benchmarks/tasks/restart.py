"""A crew of threads that hold (or held) a connection each, then sequential requests."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import close_old_connections, transaction

from benchmarks.tasks.operation import query

PATIENCE_S = 60.0


class Crew:
    """Threads that carry out one request at a time, in turn; live as long as the process.

    As in a threaded server: a peer that keeps connections keeps one in each thread.
    """

    def __init__(self, threads: int) -> None:
        self._inboxes = [queue.SimpleQueue[Callable[[], None]]() for _ in range(threads)]
        for inbox in self._inboxes:
            threading.Thread(target=self._serve, args=[inbox], daemon=True).start()

    def send(self, number: int, work: Callable[[], None]) -> None:
        """Have one of the threads carry out *work*."""
        self._inboxes[number % len(self._inboxes)].put(work)

    @staticmethod
    def _serve(inbox: "queue.SimpleQueue[Callable[[], None]]") -> None:
        while True:
            inbox.get()()


_crew: Crew


def warm(connections: int) -> None:
    """Start the crew and have so many connections open at the same time; then all are idle."""
    global _crew
    _crew = Crew(connections)
    all_have_one = threading.Barrier(connections)
    done: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def hold() -> None:
        try:
            # In a transaction, because a peer may take its connection back after each statement.
            with transaction.atomic():
                query()
                all_have_one.wait(PATIENCE_S)
            close_old_connections()  # as at a request's end
            done.put(None)
        except Exception as error:
            all_have_one.abort()
            done.put(f"{type(error).__name__}: {error}")

    for number in range(connections):
        _crew.send(number, hold)
    errors = [error for error in (done.get() for _ in range(connections)) if error]
    if errors:
        raise RuntimeError(errors[0])


def requests(count: int, limit_s: float) -> dict[str, Any]:
    """One request after the other, none begun later than *limit_s*; what became of them."""
    times_ms: list[float] = []
    errors: list[str] = []
    end = time.perf_counter() + limit_s
    for number in range(count):
        took, error = _one(number)
        times_ms.append(took)
        errors += [error] if error else []
        if time.perf_counter() > end:
            break
    return {"times_ms": times_ms, "errors": errors}


def _one(number: int) -> tuple[float, str | None]:
    answer: queue.SimpleQueue[tuple[float, str | None]] = queue.SimpleQueue()
    _crew.send(number, lambda: answer.put(_request()))
    return answer.get()


def _request() -> tuple[float, str | None]:
    """A request as Django's handlers make one; its milliseconds and its error."""
    began = time.perf_counter()
    error = None
    close_old_connections()
    try:
        query()
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    close_old_connections()
    return 1e3 * (time.perf_counter() - began), error
