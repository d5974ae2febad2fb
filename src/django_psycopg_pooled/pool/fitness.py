"""Whether a connection may be lent: alive, young enough, and checked if it was idle for long."""

import logging
import math

from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.hooks import said
from django_psycopg_pooled.pool.hygiene import Hygiene
from django_psycopg_pooled.pool.ledger import Batch
from django_psycopg_pooled.pool.states import State

logger = logging.getLogger(__name__)

GREETINGS = 16  # reads of what an idle connection was sent, before it counts as alive anyway


class Fitness:
    """Judges connections; belongs to one pool."""

    def __init__(self, core: Core, hygiene: Hygiene) -> None:
        self._core = core
        self._hygiene = hygiene

    def is_fit(self, entry: Entry) -> bool:
        """Whether a connection that the caller has in hand may be lent.

        Blocks for one round trip if it was idle for longer than check_idle, is suspect, or the
        option `check` asks for it. If it is dead, all idle connections are looked at before this
        returns, about 1 us each.
        """
        if entry.session.unread:
            given_back = entry.proven_at
            if not self.answers(entry):
                return False
            # The answer may have waited on the socket for long: what it proves was then.
            entry.proven_at = given_back
            entry.fresh_until = min(given_back + self._core.options.fresh_for, entry.retire_at)
        if entry.watch(0) and not self._hears_life(entry):
            self._found_dead(entry)
            return False
        now = self._core.clock.monotonic()
        if now < entry.fresh_until:
            return True
        if now >= entry.retire_at or self._idled_too_long(entry, now):
            return False
        return self.answers(entry)

    def answers(self, entry: Entry) -> bool:
        """Ask the server, or the user's check: one round trip, bounded by check_timeout.

        If a reset was sent, its answer is all that is waited for.
        """
        core = self._core
        began = core.clock.monotonic()
        try:
            if entry.session.unread:
                self._hygiene.finish(entry)
            else:
                with core.watchdog.over(entry.connection, core.options.check_timeout):
                    self.check(entry.connection)
        except Exception as error:
            logger.info("pool %r: connection %d failed its check: %s",
                        self._core.name, entry.number, said(error))  # fmt: skip
            if 0.0 < core.options.check_timeout <= core.clock.monotonic() - began:
                self._drop_unproven(began)
            self._found_dead(entry)
            return False
        entry.proven_at = self._core.clock.monotonic()
        return True

    def _drop_unproven(self, since: float) -> None:
        """There was no answer in check_timeout: nobody else is to wait as long for the others."""
        core = self._core
        with core.lock:
            unproven = [entry for entry in core.ledger.idle if entry.proven_at < since]
            core.counters.connections_lost += len(unproven)
            closing = core.ledger.take(unproven, State.CLOSING)
        core.close_entries(closing)

    def check(self, connection: object) -> None:
        """The user's check, or the driver's. Raises if the connection is unfit."""
        check = self._core.options.check
        if callable(check):
            check(connection)
        else:
            self._core.driver.check(connection)

    def verify_idle(self, *, unproven_for: float) -> int:
        """Check idle connections, one after the other; how many were dropped.

        unproven_for   seconds since the server was last known to be behind them; 0 for all

        While one is checked the others can be lent. Blocks for a round trip each.
        """
        core = self._core
        dropped = 0
        with core.lock:
            idle = list(core.ledger.idle)
        for entry in idle:
            with core.lock:
                now = core.clock.monotonic()
                if entry.state is not State.IDLE or now - entry.proven_at < unproven_for:
                    continue
                batch = core.ledger.take([entry], State.CHECKING)
            dropped += not self._verify(batch)
        return dropped

    def _verify(self, batch: Batch) -> bool:
        """Check one connection in the background and say what becomes of it."""
        core, entry = self._core, batch[0]
        alive = False
        try:
            alive = self.answers(entry)
        finally:
            with core.lock:
                if alive and not core.ledger.closed:
                    entry.fresh_until = entry.proven_at + core.options.fresh_for
                    core.ledger.give(entry, core.clock.monotonic())
                else:
                    alive = False
                    entry.move(State.CLOSING)
            if not alive:
                core.close_entries(batch)
        return alive

    def _idled_too_long(self, entry: Entry, now: float) -> bool:
        # Its loan began just now: `since` is no help, but it was proven when it was given back.
        options = self._core.options
        surplus = self._core.ledger.size > options.min_size
        return surplus and now - entry.proven_at >= options.idle_limit

    def _hears_life(self, entry: Entry) -> bool:
        """Read what the server sent while nobody listened: False if it was the end."""
        for _ in range(GREETINGS):
            try:
                self._core.driver.absorb(entry.connection)
            except Exception as error:
                logger.info("pool %r: connection %d has ended: %s",
                            self._core.name, entry.number, error)  # fmt: skip
                return False
            if not entry.watch(0):
                return True
        return True

    def _found_dead(self, entry: Entry) -> None:
        """One is dead, so the server may have restarted: drop or suspect all idle ones at once.

        Without it, each next request would find the next dead one.
        """
        core = self._core
        with core.lock:
            core.counters.connections_lost += 1
        self.sweep()

    def sweep_if_ended(self) -> None:
        """Look at the idle sockets before a request does. No round trip."""
        with self._core.lock:
            # Under the lock, so that no request uses the same watch just now. It never waits.
            ended = any(entry.watch(0) for entry in self._core.ledger.idle)
        if ended:
            self.sweep()

    def sweep(self) -> None:
        """Close the idle connections that have ended; the others get a check before their loan."""
        core = self._core
        with core.lock:
            suspects = core.ledger.take_all_idle(State.CHECKING)
        dead: set[Entry] = set()
        try:
            dead = {e for e in suspects if e.watch(0) and not self._hears_life(e)}
        finally:
            with core.lock:
                core.counters.connections_lost += len(dead)
                if core.ledger.closed:
                    dead = set(suspects)
                for entry in suspects:
                    if entry in dead:
                        entry.move(State.CLOSING)
                    else:
                        entry.fresh_until = -math.inf
                        core.ledger.give(entry, core.clock.monotonic())
        core.close_entries([entry for entry in suspects if entry in dead])
