"""What a pool does when nobody asks it for anything: retire, shrink, keep alive, refill."""

import logging

from django_psycopg_pooled.pool.alarm import Alarm
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.fitness import Fitness
from django_psycopg_pooled.pool.leaks import Leaks
from django_psycopg_pooled.pool.opener import Opener
from django_psycopg_pooled.pool.reclaimer import Reclaimer
from django_psycopg_pooled.pool.states import State

logger = logging.getLogger(__name__)


class Housekeeper:
    """One duty of one pool: run() now and then, as long as a connection is idle."""

    def __init__(
        self,
        core: Core,
        fitness: Fitness,
        opener: Opener,
        reclaimer: Reclaimer,
        leaks: Leaks,
        alarm: Alarm,
    ) -> None:
        self._core = core
        self._reclaimer = reclaimer
        self._leaks = leaks
        self._fitness = fitness
        self._opener = opener
        self._alarm = alarm
        alarm.wakes(self.run)

    def run(self) -> None:
        """Do all that is due, and say when to come again. Blocks for closes and checks."""
        core = self._core
        if not self._alarm.rings():
            return
        try:
            self._reclaimer.run()
            self._leaks.look()
            self.retire()
            self._fitness.sweep_if_ended()
            if core.options.keepalive:
                self._fitness.verify_idle(unproven_for=core.options.keepalive)
            self._opener.meet_demand()
        except Exception:
            # A defect, or a driver's: the pool must go on, and come again.
            logger.exception("pool %r: housekeeping failed", core.name)
        self._alarm.arm()

    def retire(self) -> None:
        """Close the idle connections that are too old, idle for too long, or above max_size."""
        core = self._core
        with core.lock:
            expired = self._expired_locked(core.clock.monotonic())
            closing = core.ledger.take(expired, State.CLOSING)
        core.close_entries(closing)

    def _expired_locked(self, now: float) -> list[Entry]:
        """From the bottom of the stack, where the connections lie that were idle longest."""
        ledger, options = self._core.ledger, self._core.options
        surplus = ledger.size - options.min_size
        above = ledger.size - options.max_size
        expired: list[Entry] = []
        for entry in ledger.idle:
            idled = now - entry.since >= options.idle_limit
            if now >= entry.retire_at or above > len(expired) or (idled and surplus > len(expired)):
                expired.append(entry)
        return expired
