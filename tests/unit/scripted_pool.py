"""A pool without a server, and what must always hold of one."""

from collections.abc import Callable
from typing import Any

from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.runtime.inline import InlineRuntime
from django_psycopg_pooled.testing import ManualClock, ManualRuntime, ScriptedDriver


class ScriptedPool:
    """A Pool on a scripted driver, a manual clock and a manual runtime, and all its parts."""

    def __init__(self, driver: ScriptedDriver | None = None, **options: Any) -> None:
        self.driver = driver or ScriptedDriver()
        self.runtime = InlineRuntime() if options.get("num_workers") == 0 else ManualRuntime()
        self.clock = ManualClock(self.runtime)
        options = {"min_size": 0, "max_size": 10, **options}
        self.pool = Pool("shop", self.driver.connect, self.driver, PoolOptions.parse(options),
                         runtime=self.runtime, clock=self.clock)  # fmt: skip

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Let *action* happen in so many seconds from now, as if another thread did it."""

        def act() -> None:
            action()

        self.runtime.call_at(self.clock.now + seconds, act)

    def warm(self, count: int) -> None:
        """Open *count* connections and leave them idle, the first one deepest in the stack."""
        leases = [self.pool.checkout() for _ in range(count)]
        for lease in leases:
            self.pool.checkin(lease)

    def counts(self) -> dict[str, int]:
        """How many connections are in each state that some are in."""
        states = [c.state for c in self.pool.snapshot().connections]
        return {state: states.count(state) for state in states}


def audit(pool: Pool) -> None:
    """Assert the invariants of the pool's books, as its ledger's docstring states them."""
    core = pool._core
    with core.lock:
        ledger = core.ledger
        states = [entry.state for entry in ledger.entries]
        assert sorted(map(id, ledger.idle)) == sorted(
            id(e) for e in ledger.entries if e.state is State.IDLE
        )
        assert ledger.lent == states.count(State.LENT)
        assert ledger.opening == states.count(State.OPENING)
        assert ledger.asking == sum(waiter.asking for waiter in ledger.waiting)
        assert State.CLOSED not in states
        assert all(bool(e.loan) == (e.state is State.LENT) for e in ledger.entries)
        assert not (ledger.waiting and ledger.idle and not ledger.paused)
        assert not ledger.calm or ledger.is_calm(core.options.max_size)
        assert [e.since for e in ledger.idle] == sorted(e.since for e in ledger.idle)
