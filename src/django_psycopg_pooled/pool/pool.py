"""The pool of one database in one process, as its users see it."""

import weakref
from collections.abc import Callable
from typing import Any

from django_psycopg_pooled.clock import SYSTEM_CLOCK, Clock
from django_psycopg_pooled.drivers.protocol import Driver
from django_psycopg_pooled.facts.pool import PoolSnapshot
from django_psycopg_pooled.observing import Listener, Observer
from django_psycopg_pooled.options import PoolOptions, with_max_size
from django_psycopg_pooled.pool.alarm import Alarm
from django_psycopg_pooled.pool.control import Control
from django_psycopg_pooled.pool.core import Connector, Core, Restore
from django_psycopg_pooled.pool.counters import Counters
from django_psycopg_pooled.pool.dedicated import Dedicated
from django_psycopg_pooled.pool.fitness import Fitness
from django_psycopg_pooled.pool.housekeeper import Housekeeper
from django_psycopg_pooled.pool.hygiene import Hygiene
from django_psycopg_pooled.pool.leaks import Leaks
from django_psycopg_pooled.pool.lender import Lender
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


class Pool(Lender):
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
        core = Core(
            name, connector, driver, options,
            restorer=restorer, observer=observer, listener=listener, runtime=runtime, clock=clock,
        )  # fmt: skip
        hygiene = Hygiene(core)
        fitness = Fitness(core, hygiene)
        alarm = Alarm(core)
        opener = Opener(core, fitness, alarm)
        leaks = Leaks(core)
        returns = Returns(core, fitness, hygiene, opener, leaks, alarm)
        reclaimer = Reclaimer(core, returns)
        queue = Queue(core, opener, reclaimer)
        lookout = Lookout(core, reclaimer)
        super().__init__(core, fitness, alarm, opener, returns, queue, lookout)
        self._housekeeper = Housekeeper(core, fitness, opener, reclaimer, leaks, alarm)
        self._control = Control(core, fitness, opener, returns, self._housekeeper, reclaimer, alarm)
        # The core and the ledger know these, too; but each request asks.
        self.options = options  # those that hold now
        self.closed = False  # close() was called
        core.pool = weakref.ref(self)
        # Also at the interpreter's exit. Refers to the core only, never to the pool.
        weakref.finalize(self, self._control.abandon)

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} at 0x{id(self):x}>"

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

    # ---- facts

    @property
    def name(self) -> str:
        """The option `name`, or the alias."""
        return self._core.name

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
        with core.glance():
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
        self.options = self._core.given
        self._lookout.wake()  # for what is lent already; the next checkout would be too late

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """configure() both sizes; max_size is min_size if not given, as in psycopg_pool."""
        given = (
            {"min_size": min_size}
            if max_size is None
            else {"min_size": min_size, "max_size": max_size}
        )
        self.configure(**with_max_size(given))

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
        self.closed = True
        self._control.close(timeout)


def make_runtime(name: str, options: PoolOptions, clock: Clock) -> Runtime:
    """Threads, or none, as the option num_workers says."""
    if options.num_workers:
        return ThreadRuntime(name, options.num_workers, clock)
    return InlineRuntime()
