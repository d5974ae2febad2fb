"""Requests as Django's handlers make them, and what became of them."""

import time
from typing import Any

from django.db import close_old_connections

from benchmarks.tasks.operation import query


def request(sql: str = "SELECT 1") -> dict[str, Any]:
    """One request: its seconds, and if it failed the error and the name of what raised it."""
    began = time.perf_counter()
    error, kind = None, None
    close_old_connections()
    try:
        query(sql)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        kind = type(failure.__cause__ or failure).__name__  # Django wraps the driver's
    close_old_connections()
    return {"seconds": time.perf_counter() - began, "error": error, "kind": kind}


def request_after(idle_s: float) -> dict[str, Any]:
    """One request when nothing has happened for a while."""
    time.sleep(idle_s)
    return request()


def writes(count: int) -> list[str]:
    """The errors of so many requests that each insert a row."""
    errors = [request("INSERT INTO written VALUES (1) RETURNING 1")["error"] for _ in range(count)]
    return [error for error in errors if error]
