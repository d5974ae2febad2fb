"""Many clients at the same moment, each with one request."""

import contextlib
import threading
import time

from django.db import connections, transaction

from benchmarks.tasks.operation import close, let_go, operate, query
from benchmarks.tasks.together import Start, together

PATIENCE_S = 60.0


def load() -> None:
    """Import all that the first use of a database would; the peer itself stays cold."""
    assert connections["default"].vendor == "postgresql"
    query(alias="plain")
    connections["plain"].close()


def warm(connections: int) -> None:
    """Have so many connections open at the same time, then give them back."""
    all_have_one = threading.Barrier(connections)

    def hold(start: Start) -> None:
        start()
        # In a transaction, because a peer may take its connection back after each statement.
        with transaction.atomic():
            query()
            all_have_one.wait(PATIENCE_S)
        let_go()

    together(connections, hold)


def traffic(threads: int, operations: int, sql: str) -> None:
    """Requests as they usually are: so many one after the other in each thread."""

    def serve(start: Start) -> None:
        start()
        for _ in range(operations):
            operate(sql)
        close()

    together(threads, serve)


def storm(clients: int, sql: str, hold: bool) -> list[float]:
    """Seconds until each client had its answer.

    With *hold* a client's transaction stays open until all have been served, as long requests'
    do; otherwise the connection is given back at once.
    """
    all_served = threading.Barrier(clients)

    def request(start: Start) -> float:
        began = start()
        with transaction.atomic() if hold else contextlib.nullcontext():
            query(sql)
            served = time.perf_counter() - began
            if hold:
                all_served.wait(PATIENCE_S)
        let_go()
        return served

    return together(clients, request)
