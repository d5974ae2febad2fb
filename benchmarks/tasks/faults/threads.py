"""Threads that end, wait, pause or are interrupted while they have a connection."""

import inspect
import re
import threading
import time
from typing import Any

from django.db import connections, transaction

from benchmarks.tasks.faults.requests import request
from benchmarks.tasks.operation import close, query
from benchmarks.tasks.together import Start, together


def abandon(threads: int) -> None:
    """So many threads, one after the other, that query and end without close()."""
    for _ in range(threads):
        thread = threading.Thread(target=query, daemon=True)
        thread.start()
        thread.join()


def pause_between(threads: int, pause_s: float) -> dict[str, Any]:
    """Threads that query, do something else and query again: seconds until all have, errors."""

    def serve(start: Start) -> str | None:
        start()
        try:
            query()
            time.sleep(pause_s)
            query()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            close()
        return None

    began = time.perf_counter()
    errors = [error for error in together(threads, serve) if error]
    return {"seconds": time.perf_counter() - began, "errors": errors}


def served_at_once(threads: int, patience_s: float) -> int:
    """How many of so many threads get a connection while the others keep theirs."""
    done = threading.Event()
    served: list[None] = []
    ended = threading.Semaphore(0)

    def serve() -> None:
        try:
            with transaction.atomic():
                query()
                served.append(None)
                ended.release()
                done.wait(2 * patience_s)
            close()
        except Exception:
            ended.release()

    for _ in range(threads):
        threading.Thread(target=serve, daemon=True).start()
    end = time.monotonic() + patience_s
    for _ in range(threads):
        ended.acquire(timeout=max(0.0, end - time.monotonic()))
    done.set()
    return len(served)


def exhaust() -> dict[str, Any]:
    """A request while another thread has the only connection: its outcome, and what it names."""
    held, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=_hold, args=[held, over], name="holder", daemon=True)
    thread.start()
    held.wait()
    outcome = request()
    over.set()
    return {**outcome, "names_line": _names_line_of_hold(outcome["error"] or "")}


def _hold(held: threading.Event, over: threading.Event) -> None:
    with transaction.atomic(), connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
        held.set()
        over.wait(120)


def _names_line_of_hold(text: str) -> bool:
    """Whether *text* names a line of _hold(): as file:line, or as a traceback does."""
    lines, first = inspect.getsourcelines(_hold)
    found = re.findall(r'faults/threads\.py(?:"?, line |:)(\d+)', text)
    return any(first <= int(line) < first + len(lines) for line in found)
