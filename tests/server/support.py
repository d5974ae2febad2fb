"""What the tests against a running server share. Nothing in here is a test."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import pytest
from django.db import connections

from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.pool.pool import Pool

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "tests"
ENGINE = "django_psycopg_pooled.backends.postgresql"
DEBIAN_BIN = Path("/usr/lib/postgresql/15/bin")
STATES = ("opening", "idle", "lent", "checking", "closing")

T = TypeVar("T")


def skip_or_fail(reason: str) -> NoReturn:
    """Skip this test; but fail it where everything must run, so that CI cannot skip in silence."""
    if os.environ.get("DPP_REQUIRE_EVERYTHING") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require(there: object, reason: str) -> None:
    """Go on only if *there*; *reason* says what is missing and how to get it."""
    if not there:
        skip_or_fail(reason)


def wrapper(alias: str) -> PooledWrapper:
    """This thread's wrapper of *alias*."""
    return cast(PooledWrapper, connections[alias])


def pool_of(connection: PooledWrapper) -> DatabasePool:
    """Its pool, which it must have."""
    pool = connection.pool
    assert pool is not None
    return pool


def borrow(connection: PooledWrapper) -> int:
    """Have it connected; the server's process id."""
    connection.ensure_connection()
    return DRIVER.server_pid(connection.connection)


def value(connection: PooledWrapper, sql: str, *params: str | int) -> Any:
    """The first column of the first row."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        row = cursor.fetchone()
    return row[0]


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return as soon as *condition* holds; fail if it does not within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.005)


def assert_adds_up(pool: Pool) -> None:
    """Every connection of the pool is in one state, and the statistics agree."""
    facts = pool.snapshot()
    counts = {state: facts.count(state) for state in STATES}  # type: ignore[arg-type]
    assert sum(counts.values()) == facts.size, counts
    assert facts.size <= facts.max_size, pool.as_table()


def fill(pool: Pool, count: int) -> list[int]:
    """Have *count* connections idle; their server process ids, the next to be lent last."""
    raws: list[Any] = []
    with contextlib.ExitStack() as returns:
        for _ in range(count):
            raws.append(returns.enter_context(pool.connection()))
    return [DRIVER.server_pid(raw) for raw in reversed(raws)]


class Call(threading.Thread):
    """Runs *function* in a thread, whose connections are closed at its end."""

    def __init__(self, function: Callable[[], object], name: str | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self._function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()

    def outcome(self) -> Any:
        """What the function returned, or raises what it raised. Waits for the end."""
        self.join(30)
        assert not self.is_alive(), f"{self.name} hangs"
        if self.error is not None:
            raise self.error
        return self.result


def in_thread(function: Callable[[], T]) -> T:
    """Call *function* in a thread of its own, wait for it, and return what it returns."""
    return cast(T, Call(function).outcome())


@contextlib.contextmanager
def lent_to_a_thread(alias: str, name: str = "holder", sql: str = "SELECT 1") -> Iterator[int]:
    """A thread holds a connection of *alias* all the while; gives the server's process id."""
    ready, done = threading.Event(), threading.Event()
    pids: list[int] = []

    def hold() -> None:
        try:
            pids.append(borrow(wrapper(alias)))
            with wrapper(alias).cursor() as cursor:
                cursor.execute(sql)
        finally:
            ready.set()
        done.wait(60)

    call = Call(hold, name)
    assert ready.wait(30)
    try:
        if not pids:
            call.outcome()
        yield pids[0]
    finally:
        done.set()
        call.outcome()


PREAMBLE = """\
import json, os, django
from django.conf import settings
settings.configure(
    DATABASES=json.loads(os.environ["TEST_DATABASES"]), USE_TZ=True,
    SECRET_KEY="x", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.db import connection, connections
from django_psycopg_pooled.integration.driver import DRIVER
def pid():
    connection.ensure_connection()
    return DRIVER.server_pid(connection.connection)
"""


def run_script(
    code: str, databases: Mapping[str, Any], *flags: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run PREAMBLE and *code* in a Python of its own with these DATABASES."""
    return run_python(
        *flags, "-c", PREAMBLE + code,
        environ={"TEST_DATABASES": json.dumps(databases)}, timeout=timeout,
    )  # fmt: skip


def run_python(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter, with the same driver in sight as here."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env={**os.environ, **(environ or {})}, timeout=timeout,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
