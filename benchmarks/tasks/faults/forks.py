"""Children of fork() that use the pool they were born with, each row marked with whose it is."""

import json
import os
import signal
import time
from typing import Any, NoReturn

from django.db import connections

LONGEST = 200  # all answers of a child must fit into a pipe
OK, FOREIGN, ERROR = "ok", "foreign", "error"


def fork_and_ask(children: int, queries: int, limit_s: int) -> list[dict[str, Any]]:
    """Of each child what it got (see _ask), whether it was late, and the signal that ended it."""
    born = [_fork(f"child {number}", queries, limit_s) for number in range(children)]
    end = time.monotonic() + limit_s
    found = []
    for pid, pipe in born:
        late, ended_by = _wait(pid, end)
        with os.fdopen(pipe) as lines:  # a pipe holds all that a child says
            answers = [json.loads(line) for line in lines]
        found.append({"answers": answers, "late": late, "signal": ended_by})
    return found


def ask(name: str, queries: int) -> list[list[str]]:
    """What this process gets now."""
    return [_ask(f"{name} query {number}") for number in range(queries)]


def _fork(name: str, queries: int, limit_s: int) -> tuple[int, int]:
    """Start a child; its process id, and the pipe with its answers."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _live(name, queries, limit_s, writing)
    os.close(writing)
    return pid, reading


def _wait(pid: int, end: float) -> tuple[bool, int]:
    """Whether the child had to be killed, and the signal that ended it, 0 if none."""
    late = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return late, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if not late and time.monotonic() > end:
            late = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _live(name: str, queries: int, limit_s: int, pipe: int) -> NoReturn:
    """The child's life: it never returns into the parent's code, and hangs no longer than that."""
    signal.alarm(2 * limit_s)  # should the parent be gone: ends it even if it hangs in C
    try:
        for number in range(queries):
            answer = json.dumps(_ask(f"{name} query {number}"))
            os.write(pipe, answer.encode() + b"\n")
    finally:
        os._exit(0)


def _ask(tag: str) -> list[str]:
    """[OK, ""], [FOREIGN, the row] or [ERROR, its text]."""
    try:
        with connections["default"].cursor() as cursor:
            # Not too fast, so that the children's queries meet.
            cursor.execute(f"SELECT '{tag}', pg_sleep(0.002)")
            row = cursor.fetchone()
        connections["default"].close()
    except Exception as error:
        _close_after_error()
        return [ERROR, f"{type(error).__name__}: {error}"[:LONGEST]]
    return [OK, ""] if row and row[0] == tag else [FOREIGN, str(row)[:LONGEST]]


def _close_after_error() -> None:
    try:
        connections["default"].close()
    except Exception:
        connections["default"].connection = None
