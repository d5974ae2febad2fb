"""What becomes of a connection that is given back."""

import logging
import math

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.pool.alarm import Alarm
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.pool.fitness import Fitness
from django_psycopg_pooled.pool.hooks import said
from django_psycopg_pooled.pool.hygiene import Hygiene, Untidy
from django_psycopg_pooled.pool.leaks import Leaks
from django_psycopg_pooled.pool.opener import Opener
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.session import Effect

logger = logging.getLogger(__name__)


class Returns:
    """Takes connections back into one pool: tidied, to the next who waits, or closed."""

    def __init__(
        self,
        core: Core,
        fitness: Fitness,
        hygiene: Hygiene,
        opener: Opener,
        leaks: Leaks,
        alarm: Alarm,
    ) -> None:
        self._core = core
        self._leaks = leaks
        self._fitness = fitness
        self._hygiene = hygiene
        self._opener = opener
        self._alarm = alarm

    def take_back(self, lease: Lease) -> None:
        """End a loan whose connection is as it was lent. Blocks for a close, if any."""
        core = self._core
        with core.lock:
            now = core.clock.monotonic()
            kept = lease.ended or self._keep_locked(lease, now)
        self._leaks.tell_ends()
        if not kept:
            core.close_entries([lease.entry])
            self._opener.meet_demand()
        self._alarm.arm()
        if now >= core.duty_at:
            core.duty_at = math.inf  # before the work, so that one thread does it
            core.duty_at = core.runtime.run_due(now)

    def _keep_locked(self, lease: Lease, now: float) -> bool:
        """End the loan; False if its connection is to be closed, and is CLOSING already."""
        core, entry = self._core, lease.entry
        ledger, options = core.ledger, core.options
        ledger.end(lease)
        used = now - entry.since
        core.counters.usage_s += used
        core.counters.loans_num += 1
        entry.since = entry.proven_at = now
        if entry.reported_at < now:
            self._leaks.ended_locked(entry, used)
        if ledger.paused:
            core.notify()
        if now >= entry.retire_at or ledger.closed or len(ledger.entries) > options.max_size:
            entry.owner = lease.ref
            entry.move(State.CLOSING)
            return False
        if entry.session.unread:
            entry.fresh_until = -math.inf  # whoever is lent it next reads the answer first
        else:
            entry.fresh_until = min(now + options.fresh_for, entry.retire_at)
        ledger.give(entry, now)
        # Without threads each return looks whether housekeeping is due.
        ledger.calm = ledger.is_calm(options.max_size) and core.runtime.threaded
        return True

    def tidy_up(self, lease: Lease) -> None:
        """Take back a connection that was not left as it was lent. Blocks for a round trip."""
        tidy = False
        try:
            # A closed pool closes it, which undoes everything, and asks no server.
            tidy = not self._core.ledger.closed and self._tidied(lease)
        finally:
            if not tidy:
                self.give_up(lease)
        if tidy:
            self.take_back(lease)

    def give_up(self, lease: Lease) -> None:
        """Close what must not be lent again, and have another opened if it is missed. Blocks."""
        try:
            self.discard(lease, bad=True)
        finally:
            self._opener.meet_demand()

    def discard(self, lease: Lease, *, bad: bool = False) -> None:
        """End a loan and close its connection. Blocks for the close.

        The caller sees to what should take its place, when its own request has been served.
        """
        core = self._core
        with core.lock:
            if lease.ended:
                return
            core.ledger.end(lease)
            core.counters.returns_bad += bad
            closing = core.ledger.take([lease.entry], State.CLOSING)
            now = core.clock.monotonic()
            if lease.entry.reported_at < now:
                self._leaks.ended_locked(lease.entry, now - lease.entry.since)
        self._leaks.tell_ends()
        core.close_entries(closing)

    def oust(self) -> None:
        """Replace every connection: idle ones now, lent ones on their return. Blocks for closes."""
        core = self._core
        with core.lock:
            idle = core.ledger.take_all_idle(State.CLOSING)
            for entry in core.ledger.entries:
                entry.retire_at = -math.inf
        core.close_entries(idle)

    def _tidied(self, lease: Lease) -> bool:
        """Bring the connection back to where it was lent; False if it must go."""
        core, entry = self._core, lease.entry
        if entry.session.dirt & Effect.OUSTED:
            logger.warning("pool %r: a connection broke, or may serve no more; all connections"
                           " are replaced", core.name)  # fmt: skip
            self.oust()
            return False
        if core.driver.status(lease.connection) is TransactionStatus.UNKNOWN:
            self._fitness.sweep()  # it broke in use: the idle ones may have, too
            return False
        try:
            self._hygiene.clean(entry)
            return True
        except Untidy as why:
            logger.warning("pool %r: a connection %s; it is closed", core.name, why)
        except Exception as error:
            logger.warning("pool %r: a connection could not be brought back and is closed: %s",
                           core.name, said(error))  # fmt: skip
        return False
