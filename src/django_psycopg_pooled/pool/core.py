"""What the parts of one pool share."""

import math
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from django_psycopg_pooled.clock import SYSTEM_CLOCK, Clock
from django_psycopg_pooled.drivers.protocol import Driver
from django_psycopg_pooled.facts.pool import PoolSnapshot
from django_psycopg_pooled.forking import carried_through
from django_psycopg_pooled.observing import Blind, Deaf, Listener, Observer
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.connects import CONNECTS
from django_psycopg_pooled.pool.counters import Counters
from django_psycopg_pooled.pool.demand import Demand
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.hooks import with_names
from django_psycopg_pooled.pool.ledger import Ledger
from django_psycopg_pooled.pool.outage import Outage
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.pool.watchdog import Watchdog
from django_psycopg_pooled.runtime.protocol import Runtime

FORK_PATIENCE_S = 0.5  # for the end of threads before a fork()
CONNECT_PATIENCE_S = 2.0  # and of connects, since each began
GLANCE_S = 0.5  # who only looks waits no longer for the lock
GLANCE_PAUSE_S = 0.001

if TYPE_CHECKING:
    from django_psycopg_pooled.pool.dedicated import Dedicated

Connector = Callable[[], Any]
Restore = Callable[[Any], object]

_inherited: list[object] = []


class Core:
    """The state of one pool, without behaviour but for fork(); lives as long as the pool.

    Guards: `lock` guards ledger, counters, demand, outage, proven and the entries in the ledger.
    `given`, and what is derived from it, is replaced whole and may be read without it.
    Lock order: look_lock, lock, then the runtime's. Under `lock`: no I/O, no callback, no logging.
    Who only looks takes it by glance(): a signal's handler may, in the midst of a block under it.
    """

    def __init__(
        self,
        name: str,
        connector: Connector,
        driver: Driver,
        options: PoolOptions,
        *,
        runtime: Runtime,
        clock: Clock,
        share: Callable[[], float] = random.random,
        restorer: Callable[[], Restore | None] | None = None,
        observer: Observer | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.name = name
        self.connector = connector
        self.driver = driver
        self.apply(options)
        self.runtime = runtime
        self.clock = clock
        self.share = share
        # Knows how to give a session back what RESET ALL takes from it.
        self.restorer: Callable[[], Restore | None] = restorer or _nothing
        self.observer: Observer = observer or Blind()
        self.listener: Listener = listener or Deaf()
        self.watchdog = Watchdog(driver, runtime, clock)
        # The pool itself, for the user's hook; weak, so that a pool that nobody uses can go.
        self.pool: Callable[[], object | None] = _nothing
        # When this thread should do the housekeeping; inf where threads do it.
        self.duty_at = math.inf
        self._dedicated: weakref.WeakSet[Dedicated] = weakref.WeakSet()
        self.forget()
        _cores.add(self)

    def apply(self, options: PoolOptions) -> None:
        """Have these options hold. Under the lock, but for the first."""
        self.given = options
        self.options = options = with_names(options)
        # What each loan asks of them, at hand.
        self.attends = options.attends_loans
        self.tidies = not options.returns_quietly
        self.fresh_for = options.fresh_for

    def forget(self) -> None:
        """Be a new, empty pool: at the start, and in a child of fork()."""
        self.lock = threading.Lock()
        self.ledger = Ledger()
        self.counters = Counters()
        self.demand = Demand()
        self.outage = Outage()
        self.proven = False  # a connect has succeeded
        self.signals: list[threading.Lock] = []  # threads that wait for a change, see Pool.wait()
        self.reclaim_at = -math.inf  # before then nobody looks for strays again
        # Returns that finalizers have asked for, for the Reclaimer to do.
        self.late: deque[Callable[[], None]] = deque()
        # The last look for an error, and when; guarded by a lock of its own.
        self.seen: tuple[float, PoolSnapshot] | None = None
        # Re-entrant: a signal's handler may be refused while its thread looks.
        self.look_lock = threading.RLock()
        self.looking = False  # the Lookout will look again
        self.unwatched = True  # the next checkout must wake it

    def connect(self) -> Any:
        """A new connection, ready for use. Blocks; raises what the driver raises."""
        with CONNECTS.one():
            return self.connector()

    def own(self, dedicated: "Dedicated") -> None:
        """Remember a connection beside the slots, so that a child of fork() leaves it alone."""
        self._dedicated.add(dedicated)

    def disown(self) -> None:
        """In a child of fork(): leave the connections to the parent without sending a byte.

        May be called again if it was interrupted.
        """
        closed = self.ledger.closed
        dedicated = list(self._dedicated)
        inherited = [entry.connection for entry in self.ledger.entries]
        inherited += [each.connection for each in dedicated]
        # Kept for ever: a driver may say goodbye to the server when a connection is collected.
        _inherited.append(inherited)
        for connection in inherited:
            if connection is not None:
                self.driver.leave(connection)
        for each in dedicated:
            each.connection = None
        for entry in self.ledger.entries:
            entry.loan = 0
            entry.state = State.CLOSED
        self.runtime.forget()
        self.watchdog.forget()
        self.duty_at = math.inf
        self.forget()
        self.ledger.closed = closed

    def glance(self) -> AbstractContextManager[object]:
        """For a with block that only reads: the lock; or nothing, if it is not free for GLANCE_S.

        The thread that has it may be this one, below in the stack, which goes on when a signal's
        handler has returned. What is read then is true of each thing, but may not add up. Not a
        lock that one thread may take twice: a change in the midst of another would break the books.
        """
        return self.lock if self.lock_gets_free() else nullcontext()

    def lock_gets_free(self) -> bool:
        """Whether it is, or becomes so within GLANCE_S: not if this very thread has it."""
        # Not acquire(timeout=...): an exception from a signal just behind it would leave it taken.
        deadline = SYSTEM_CLOCK.monotonic() + GLANCE_S
        while self.lock.locked():
            if SYSTEM_CLOCK.monotonic() >= deadline:
                return False
            SYSTEM_CLOCK.sleep(GLANCE_PAUSE_S)
        return True

    def close_entries(self, entries: Sequence[Entry]) -> None:
        """Close connections that are CLOSING, then free their slots. Blocks for their goodbyes."""
        try:
            for entry in entries:
                if entry.connection is not None:
                    self.driver.close(entry.connection)
        finally:
            with self.lock:
                for entry in entries:
                    self.ledger.release(entry)
                self.notify()

    def notify(self) -> None:
        """Wake the threads that wait for a change. Under the lock."""
        for signal in self.signals:
            signal.release()
        self.signals.clear()


def _nothing() -> None:
    return None


_cores: "weakref.WeakSet[Core]" = weakref.WeakSet()


def _pause_all() -> None:
    """Before fork(): as few threads as can be.

    Here and below: whatever a signal's handler raises, Python forks, and each hook must have done
    its work; see carried_through().
    """
    try:
        for core in list(_cores):
            core.runtime.pause(FORK_PATIENCE_S)
    finally:
        CONNECTS.hold(CONNECT_PATIENCE_S)


def _resume_all() -> None:
    """After fork(), in the parent."""
    try:
        CONNECTS.go_on()
    finally:
        _resume_cores()


@carried_through
def _resume_cores() -> None:
    for core in list(_cores):
        core.runtime.resume()
        # Where that has started no thread, as Python still counts them, the next return does.
        core.ledger.disarm()
        core.watchdog.resume()


@carried_through
def _disown_all() -> None:
    """In a child of fork(): every pool leaves its connections to the parent."""
    for core in list(_cores):
        core.disown()


os.register_at_fork(before=_pause_all, after_in_parent=_resume_all, after_in_child=_disown_all)
