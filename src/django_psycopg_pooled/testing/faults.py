"""Faults for the tests of those who use pools: sessions that end, connects that fail or take long.

    with fail_connects(times=2):
        ...

All act on this process's pool of one alias, and on its own sessions on the server: nothing here
asks whether it runs in a test, and no other process's connections are touched.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.registry import pools
from django_psycopg_pooled.integration.wrapper import PooledWrapper

REFUSED = "connection failed: Connection refused (by fail_connects() of a test)"
PATIENCE_S = 10.0  # for the server to end sessions

_spared = threading.local()  # `now` is True in a thread whose connects are the test kit's own


def kill_backend(target: "str | BaseDatabaseWrapper" = "default") -> int:
    """End the server session that *target* has now, as an operator would; its process id.

    target   an alias, for this thread's connection; or a connection of django.db, of any thread

    The client does not notice before it uses the connection. Blocks for a connect and until the
    session is gone: for 10 s at the longest. In Django's TestCase its transaction ends with it; use
    TransactionTestCase. Raises ValueError if *target* has no connection now or no pool, and behind
    a pooler.
    """
    wrapper = connections[target] if isinstance(target, str) else target
    pool = _pool_of(wrapper)
    if wrapper.connection is None:
        raise ValueError(
            f"{wrapper.alias!r} has no connection in the thread of *target* now: execute something"
            " first, in a transaction if the pool's option release is 'transaction'."
        )
    pid = DRIVER.server_pid(wrapper.connection)
    _end_sessions(pool, [pid])
    return pid


def drop_idle(using: str = "default") -> int:
    """Have the server end the session of every idle connection of the pool; how many there were.

    As a restart of the server or a firewall does: the pool is not told, and its next checkouts find
    out. (To close them politely: pool.drain().) Blocks for a connect and until the sessions are
    gone: for 10 s each at the longest. One that is lent just then is ended, too.
    """
    pool = pools[using]
    idle = [c for c in pool.snapshot().connections if c.state == "idle"]
    _end_sessions(pool, [c.server_pid for c in idle if c.server_pid is not None])
    return len(idle)


class Fault:
    """What goes wrong with each connect of one pool; lives for one with block. Any thread.

    Guards: `_lock` guards `connects`. Nothing blocks under it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.connects = 0  # how many have met it

    def strike(self) -> None:
        """Called in the thread of each connect, before it begins. May block, and raise."""
        with self._lock:
            self.connects += 1

    def end(self) -> None:
        """Hold nothing up any more."""


class Delay(Fault):
    """Connects take *seconds* longer, or until the end of the block."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._over = threading.Event()

    def strike(self) -> None:
        super().strike()
        self._over.wait(self._seconds)

    def end(self) -> None:
        self._over.set()


class Failure(Fault):
    """The first *times* connects raise *error*; all of them if *times* is None."""

    def __init__(self, error: Exception, times: int | None) -> None:
        super().__init__()
        self._error = error
        self._times = times

    def strike(self) -> None:
        with self._lock:
            if self._times is not None and self.connects >= self._times:
                return
            self.connects += 1
        raise self._error.with_traceback(None)


@contextmanager
def delay_connects(using: str = "default", seconds: float = 1.0) -> Iterator[Fault]:
    """Each connect of the pool takes *seconds* longer in the block, before it begins.

    Idle connections are lent as ever: see drop_idle(), or max_size. Connects that still wait at the
    block's end go on at once. The block's `connects` says how many have waited. Does not block.
    """
    with _struck(pools[using], Delay(seconds)) as fault:
        yield fault


@contextmanager
def fail_connects(
    using: str = "default", times: int | None = None, error: Exception | None = None
) -> Iterator[Fault]:
    """Connects of the pool fail in the block, without a word to the server.

    times   how many; None for all of them
    error   what they raise; None for the driver's OperationalError, a refused connection

    Idle connections are lent as ever: see drop_idle(). As in a true outage, requests wait for the
    next attempt within their timeout, but for a pool that never had a connection: its first request
    fails at once. At the block's end the pool forgets the outage and may connect at once. The
    block's `connects` says how many have failed. Does not block.
    """
    pool = pools[using]
    if error is None:
        error = _database_of(connections[using]).OperationalError(REFUSED)
    with _struck(pool, Failure(error, times)) as fault:
        yield fault


class Faults:
    """The connector of a pool while faults are in force; goes with the last of them.

    Faults may begin and end in any order and thread. Guards: `_lock` guards every Faults object and
    which pools have one; taken alone.
    """

    _lock = threading.Lock()

    def __init__(self, connector: Any) -> None:
        self.connector = connector
        self.active: tuple[Fault, ...] = ()

    def __call__(self) -> Any:
        if not getattr(_spared, "now", False):
            for fault in self.active:
                fault.strike()
        return self.connector()

    @classmethod
    def add(cls, pool: DatabasePool, fault: Fault) -> None:
        core = pool._core
        with cls._lock:
            faults = core.connector
            if not isinstance(faults, Faults):
                faults = core.connector = Faults(core.connector)
            faults.active = (*faults.active, fault)

    @classmethod
    def remove(cls, pool: DatabasePool, fault: Fault) -> None:
        core = pool._core
        with cls._lock:
            faults = core.connector
            if isinstance(faults, Faults):
                faults.active = tuple(each for each in faults.active if each is not fault)
                if not faults.active:
                    core.connector = faults.connector


@contextmanager
def _struck(pool: DatabasePool, fault: Fault) -> Iterator[Fault]:
    Faults.add(pool, fault)
    try:
        yield fault
    finally:
        Faults.remove(pool, fault)
        fault.end()
        if isinstance(fault, Failure) and fault.connects:
            _forget_outage(pool)


def _forget_outage(pool: DatabasePool) -> None:
    """So that what comes after the test need not wait for the pause between two attempts."""
    core = pool._core
    with core.lock:
        core.outage = core.outage.over()
    pool._opener.meet_demand()


def _database_of(wrapper: Any) -> Any:
    """The driver's module, with the exceptions that Django knows."""
    return wrapper.Database


def _pool_of(wrapper: Any) -> DatabasePool:
    pool = wrapper.pool if isinstance(wrapper, PooledWrapper) else None
    if pool is None:
        raise ValueError(f"{wrapper.alias!r} has no pool of this package.")
    return pool


def _end_sessions(pool: DatabasePool, pids: Sequence[int]) -> None:
    """Terminate them, and wait until their processes are gone."""
    if pool.options.pooler:
        raise ValueError(
            f"behind a pooler ({pool.options.pooler!r}) the pool {pool.name!r} does not know the"
            " process ids of its server sessions; test without it."
        )
    _spared.now = True
    try:
        with pool.dedicated(_unwatch) as line, line.connection.cursor() as cursor:
            # Until the process has ended: its socket is open for a moment longer than the server
            # lists the session, and a checkout in that moment would find nothing wrong with it.
            cursor.execute("SELECT pg_catalog.pg_terminate_backend(pid, %s) FROM"
                           " pg_catalog.unnest(%s::int[]) AS pid",
                           (int(PATIENCE_S * 1000), list(pids)))  # fmt: skip
            if _are_there(cursor, pids):
                raise TimeoutError(f"the server has not ended {pids} in {PATIENCE_S:g} s each.")
    finally:
        _spared.now = False


def _are_there(cursor: Any, pids: Sequence[int]) -> bool:
    cursor.execute("SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid = ANY(%s)", (list(pids),))
    return bool(cursor.fetchall())


def _unwatch(connection: Any) -> None:
    """What the test kit asks is no statement of the user's."""
    connection._pool_session.journal = None
