"""When the pool's housekeeping is due next."""

import math
import weakref
from collections.abc import Callable

from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.runtime.protocol import Task

SHORTEST_NAP_S = 0.5


class Alarm:
    """Sees that housekeeping runs as long as a connection is idle; belongs to one pool."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rings_at = math.inf  # the next call; also if the ledger was disarmed since
        # Weak, so that a pool is no cycle and goes at once when nobody needs it.
        self._ring: Callable[[], Task | None] = _nobody

    def wakes(self, task: Task) -> None:
        """The method to call; said once, by the housekeeper."""
        self._ring = weakref.WeakMethod(task)

    def rings(self) -> bool:
        """Whether housekeeping is due. Not if a call comes that has been overtaken by another.

        Each would otherwise have a successor, and there would be more and more of them.
        """
        core = self._core
        with core.lock:
            if core.ledger.armed and core.clock.monotonic() < self._rings_at:
                return False
            core.ledger.disarm()
            self._rings_at = math.inf
            return True

    def arm(self) -> None:
        """See that it is called when something will be due. Cheap if that is so already."""
        core, ring = self._core, self._ring()
        if ring is None:
            return  # the pool is going
        unsaid = False
        try:
            with core.lock:
                ledger = core.ledger
                # What idle connections will want is known when they are shelved, or opened; loans
                # may be sooner.
                if ledger.closed or (ledger.armed and not core.options.leak_threshold):
                    return
                now = core.clock.monotonic()
                when = max(self._due_locked(now), now + SHORTEST_NAP_S)
                if when == math.inf or (ledger.armed and when >= self._rings_at):
                    return
                # Not later than a call that is still to come, which is overdue perhaps.
                self._rings_at = when = min(when, self._rings_at)
                unsaid = ledger.armed = True
            core.runtime.call_at(when, ring)
            unsaid = False
        finally:
            if unsaid:  # an exception from outside: else nobody would be called any more
                with core.lock:
                    ledger.disarm()
        if not core.runtime.threaded:
            core.duty_at = min(core.duty_at, when)

    def _due_locked(self, now: float) -> float:
        """When the first of the connections will want something; inf if none will."""
        ledger, options = self._core.ledger, self._core.options
        due = self._leak_due_locked() if options.leak_threshold else math.inf
        if not ledger.idle:
            return due
        # One that is lent may be idle by then. If it is not, or is late, its return sees to it.
        ages = (e.retire_at for e in ledger.entries if e.retire_at > now or e in ledger.idle)
        due = min(due, *ages)
        if ledger.size > options.min_size:
            due = min(due, ledger.idle[0].since + options.idle_limit)
        if options.keepalive:
            due = min(due, min(e.proven_at for e in ledger.idle) + options.keepalive)
        return due

    def _leak_due_locked(self) -> float:
        """When the first loan will last too long, of those that are not logged yet."""
        ledger, limit = self._core.ledger, self._core.options.leak_threshold
        loans = (e.since for e in ledger.entries if e.loan and e.reported_at == math.inf)
        return min(loans, default=math.inf) + limit


def _nobody() -> None:
    return None
