"""The pool of one database in one process, as its users see it."""

import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django_psycopg_pooled.clock import SYSTEM_CLOCK, Clock
from django_psycopg_pooled.drivers.protocol import Driver
from django_psycopg_pooled.errors import NotBorrowed
from django_psycopg_pooled.facts.pool import PoolSnapshot
from django_psycopg_pooled.observing import Listener, Observer
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.alarm import Alarm
from django_psycopg_pooled.pool.borrower import Borrower, borrower
from django_psycopg_pooled.pool.control import Control
from django_psycopg_pooled.pool.core import Connector, Core, Restore
from django_psycopg_pooled.pool.counters import Counters
from django_psycopg_pooled.pool.dedicated import Dedicated
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.pool.fitness import Fitness
from django_psycopg_pooled.pool.housekeeper import Housekeeper
from django_psycopg_pooled.pool.hygiene import Hygiene
from django_psycopg_pooled.pool.leaks import Leaks
from django_psycopg_pooled.pool.lookout import Lookout
from django_psycopg_pooled.pool.opener import Opener
from django_psycopg_pooled.pool.queue import Queue
from django_psycopg_pooled.pool.reclaimer import Reclaimer
from django_psycopg_pooled.pool.returns import Returns
from django_psycopg_pooled.pool.views import snapshot
from django_psycopg_pooled.runtime.inline import InlineRuntime
from django_psycopg_pooled.runtime.protocol import Runtime, Task
from django_psycopg_pooled.runtime.threads import ThreadRuntime
from django_psycopg_pooled.tables.pool import pool_table


class Pool:
    """Connections to one database, shared by the threads of one process.

    Lives as long as somebody refers to it; when nobody does, its connections are closed. All
    methods may be called by any thread. Those that may block say so.

    connector   opens one connection, ready for use; called in worker threads
    driver      the adapter of the driver that *connector* uses
    restorer    returns a function that gives a session back what RESET ALL takes, or None
    observer    knows lines of Python, for errors and logs
    listener    hears of timeouts and of idle transactions
    runtime     where background work runs; by default as the option num_workers says
    """

    def __init__(
        self,
        name: str,
        connector: Connector,
        driver: Driver,
        options: PoolOptions,
        *,
        restorer: Callable[[], Restore | None] | None = None,
        observer: Observer | None = None,
        listener: Listener | None = None,
        runtime: Runtime | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        runtime = runtime or make_runtime(name, options, clock)
        self._core = core = Core(
            name, connector, driver, options,
            restorer=restorer, observer=observer, listener=listener, runtime=runtime, clock=clock,
        )  # fmt: skip
        self._monotonic: Callable[[], float] = clock.monotonic
        self._is_tidy = driver.is_tidy
        self._here = core.observer.here
        hygiene = Hygiene(core)
        self._fitness = Fitness(core, hygiene)
        self._alarm = alarm = Alarm(core)
        self._opener = Opener(core, self._fitness, alarm)
        leaks = Leaks(core)
        self._returns = Returns(core, self._fitness, hygiene, self._opener, leaks, alarm)
        reclaimer = Reclaimer(core, self._returns)
        self._queue = Queue(core, self._opener, reclaimer)
        self._housekeeper = Housekeeper(core, self._fitness, self._opener, reclaimer, leaks, alarm)
        self._control = Control(
            core, self._fitness, self._opener, self._returns, self._housekeeper, alarm
        )
        self._lookout = Lookout(core)
        self._pins = threading.local()
        core.pool = weakref.ref(self)
        # Also at the interpreter's exit. Refers to the core only, never to the pool.
        weakref.finalize(self, self._control.abandon)

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} at 0x{id(self):x}>"

    # ---- lending

    def checkout(self, timeout: float | None = None, *, bound: bool = False) -> Lease:
        """Borrow a connection: `lease.connection`. Give it back by checkin(lease).

        timeout   seconds to wait; None for the option `timeout`
        bound     only this thread will use it: when the thread ends, it is taken back

        A loan whose Lease is dropped is taken back when nothing refers to its connection either.
        Does not block if a connection is idle and was used within check_idle. Otherwise blocks
        for one round trip if one is idle, else for *timeout* at the longest, and one connect more
        with num_workers=0. Raises the driver's PoolTimeout, TooManyRequests, PoolClosed, or its
        own exception if it cannot connect and waiting would not help.
        """
        core = self._core
        now = self._monotonic()
        waited = 0.0
        holder = borrower()
        with core.lock:
            core.counters.requests_num += 1
            lease = core.ledger.lend_idle(now, holder, bound)
        if lease is None or now >= lease.entry.fresh_until or lease.entry.watch(0):
            deadline = now + (core.options.timeout if timeout is None else timeout)
            lease = self._checkout_slowly(lease, holder, bound, deadline)
            waited = self._monotonic() - now
        entry = lease.entry
        entry.stack = self._here()
        session = entry.session
        session.last, session.waited = None, waited
        if core.unwatched or core.options.attends_loans:
            self._attend(lease)
        return lease

    def _checkout_slowly(
        self, lease: Lease | None, holder: Borrower, bound: bool, deadline: float
    ) -> Lease:
        core = self._core
        discarded = False
        try:
            while True:
                if lease is None:
                    lease = self._queue.wait(holder, bound, deadline)
                if self._is_fit(lease):
                    return lease
                discarded = True
                with core.lock:
                    lease = core.ledger.lend_idle(core.clock.monotonic(), holder, bound)
        finally:
            if discarded:
                self._opener.meet_demand()  # for others, and min_size

    def _is_fit(self, lease: Lease) -> bool:
        """Judge a connection; close it if it is not fit, or its judge was interrupted."""
        fit = False
        try:
            fit = self._fitness.is_fit(lease.entry)
        finally:
            if not fit:
                self._returns.discard(lease)
        return fit

    def _attend(self, lease: Lease) -> None:
        """What some options want of each loan's begin, and the lookout of the first one."""
        options = self._core.options
        if self._core.unwatched:
            self._lookout.wake()
        if options.leak_threshold:
            self._alarm.arm()
        if options.on_checkout is not None:
            done = False
            try:
                options.on_checkout(lease.connection)
                done = True
            finally:
                if not done:
                    self._returns.discard(lease, bad=True)
                    self._opener.meet_demand()

    def checkin(self, lease: Lease) -> None:
        """End a loan. Does nothing if it has ended already, or was inherited over fork().

        Does not block if the connection is as it was lent; an open transaction is rolled back, and
        a session that statements have changed is reset, a round trip each. Never raises for the
        connection's sake: one that cannot be brought back is closed.
        """
        core = self._core
        entry = lease.entry
        if entry.loan != lease.number:
            return
        session = entry.session
        if (
            session.dirt
            or session.held
            or not core.options.returns_quietly
            or not self._is_tidy(entry.connection, session.shape)
        ):
            self._returns.tidy_up(lease)
            return
        now = self._monotonic()
        with core.lock:
            kept = self._returns.take_back_locked(lease, now)
            armed = core.ledger.armed
        if not kept or not armed or now >= core.duty_at:
            self._returns.follow_up(lease, now, kept=kept)

    def evict(self, lease: Lease) -> None:
        """Close this connection when it is given back. Does not block."""
        with self._core.lock:
            lease.entry.retire_at = -math.inf

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        """The driver's connection for a with block, in autocommit; given back at its end."""
        lease = self.checkout(timeout)
        try:
            yield lease.connection
        finally:
            self.checkin(lease)

    def getconn(self, timeout: float | None = None) -> Any:
        """Borrow the driver's connection, as checkout() does; give it back by putconn()."""
        return self.checkout(timeout).connection

    def putconn(self, connection: Any) -> None:
        """Give back what getconn() lent. Raises NotBorrowed for any other connection."""
        core = self._core
        with core.lock:
            lent = [e for e in core.ledger.entries if e.connection is connection and e.loan]
        if not lent:
            raise NotBorrowed(
                f"[{NotBorrowed.code}] {connection!r} was not lent by the pool {self.name!r};"
                " or it has been given back already."
            )
        self.checkin(Lease(lent[0], lent[0].loan))

    @contextmanager
    def pin(self) -> Iterator[None]:
        """Keep this thread's connection through the with block, where release="transaction".

        For several statements that must run in one session without a transaction. It goes back
        with the next statement after the block. Blocks may be nested.
        """
        self._pins.depth = self._pin_depth + 1
        try:
            yield
        finally:
            self._pins.depth -= 1

    @property
    def pinned(self) -> bool:
        """Whether this thread is in a pin() block."""
        return self._pin_depth > 0

    @property
    def _pin_depth(self) -> int:
        return getattr(self._pins, "depth", 0)

    def dedicated(self, on_connect: Callable[[Any], object] | None = None) -> Dedicated:
        """A connection outside the counted slots, for a with block: see Dedicated."""
        return Dedicated(self._core, on_connect)

    def in_background(self, task: Task) -> None:
        """Run *task* in a worker thread; with num_workers=0 when a caller has time. No waiting."""
        self._core.runtime.submit(task)

    def in_a_while(self, seconds: float, task: Task) -> None:
        """Run *task* in a worker thread then; not after close(). Does not block."""
        core = self._core
        core.runtime.call_at(core.clock.monotonic() + seconds, task)

    def idle_since(self, lease: Lease) -> float | None:
        """Since when its transaction was idle, in seconds on the pool's clock, if that is known."""
        return self._lookout.idle_since(lease.entry)

    # ---- facts

    @property
    def name(self) -> str:
        """The option `name`, or the alias."""
        return self._core.name

    @property
    def options(self) -> PoolOptions:
        """The options that hold now."""
        return self._core.options

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._core.ledger.closed

    def get_stats(self) -> dict[str, int]:
        """psycopg_pool's statistics by its keys: sizes now, and sums since the start."""
        return self._stats(pop=False)

    def pop_stats(self) -> dict[str, int]:
        """get_stats(), and start the sums anew."""
        return self._stats(pop=True)

    def snapshot(self) -> PoolSnapshot:
        """The pool and its connections as they are now, as facts."""
        return snapshot(self._core)

    def as_table(self) -> str:
        """The pool's connections as a table for people."""
        return pool_table(self.snapshot())

    def _stats(self, *, pop: bool) -> dict[str, int]:
        core = self._core
        with core.lock:
            counters, ledger, options = core.counters, core.ledger, core.options
            if pop:
                core.counters = Counters()
            return {
                **counters.as_stats(),
                "pool_min": options.min_size,
                "pool_max": options.max_size,
                "pool_size": ledger.size,
                "pool_available": len(ledger.idle),
                "requests_waiting": len(ledger.waiting),
            }

    # ---- control

    def configure(self, **changes: object) -> None:
        """Change options while running, all or none: `pool.configure(max_size=20)`.

        Sizes hold at once: what is too much is closed as it becomes idle. Ages and checks hold
        for each connection from its next return on. Raises OptionsError. Blocks for closes.
        """
        self._control.configure(changes)
        self._lookout.wake()  # for what is lent already; the next checkout would be too late

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """configure() both sizes; max_size is min_size if not given, as in psycopg_pool."""
        self.configure(
            min_size=min_size, max_size=max(min_size, 1) if max_size is None else max_size
        )

    def drain(self) -> None:
        """Replace every connection: idle ones now, lent ones on their return. Blocks for closes."""
        self._control.drain()

    def pause(self, timeout: float = 0.0) -> bool:
        """Lend nothing until resume(); requests wait, within their timeouts.

        Blocks until all that is lent has come back, for *timeout* seconds at the longest; True if
        it has.
        """
        return self._control.pause(timeout)

    def resume(self) -> None:
        """Lend again, those who waited first. Does not block."""
        self._control.resume()

    def check(self) -> int:
        """Check every idle connection; how many were dropped. Blocks for a round trip each."""
        return self._control.check()

    def wait(self, timeout: float = 30.0) -> None:
        """Block until min_size connections are open.

        Tries again while the server is away. Raises PoolTimeout after *timeout* seconds, and what
        the driver raises at once if the server refuses. Unlike psycopg_pool's, the pool stays open.
        """
        self._control.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Close idle connections now and lent ones when they come back; requests get PoolClosed.

        For good. Blocks until connects under way have ended too, so that no connection of this
        pool is idle on the server any more; for *timeout* seconds at the longest.
        """
        self._control.close(timeout)


def make_runtime(name: str, options: PoolOptions, clock: Clock) -> Runtime:
    """Threads, or none, as the option num_workers says."""
    if options.num_workers:
        return ThreadRuntime(name, options.num_workers, clock)
    return InlineRuntime()
