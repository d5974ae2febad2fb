"""Taking back what its borrower can give back no more."""

import logging
import sys
from functools import partial
from typing import Any

from django_psycopg_pooled.pool.borrower import borrower
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.returns import Returns

logger = logging.getLogger(__name__)

AGAIN_S = 0.05  # how soon a request that has to wait looks for lost loans once more
PLACES = 1000  # how many places are remembered for having been logged


class Reclaimer:
    """Finds loans of one pool that nobody can end any more; belongs to the pool.

    A thread has ended without close(), its wrapper was collected, or an exception from outside hit
    in the middle of a checkout or checkin. Runs before a request has to wait, while it waits, with
    the housekeeping, with each look of the Lookout, and when the pool is closed.
    """

    def __init__(self, core: Core, returns: Returns) -> None:
        self._core = core
        self._returns = returns
        self._logged: set[str] = set()

    def run(self) -> None:
        """Take back what is lost. Blocks for closes; for more only without worker threads."""
        core = self._core
        garbage: list[Any] = []  # goes without the lock: a driver may warn of open cursors
        with core.lock:
            core.reclaim_at = core.clock.monotonic() + AGAIN_S
            strays = core.ledger.mend()
            core.counters.reclaimed += len(strays)
            claims = self._claim_locked(garbage)
        if strays:
            logger.warning("pool %r: %d connections were left by interrupted calls and are closed",
                           core.name, len(strays))  # fmt: skip
            core.close_entries(strays)
        for claim in claims:
            self._report(claim)
            if core.runtime.threaded:
                core.runtime.submit(partial(self._returns.tidy_up, claim))
            else:
                self._returns.tidy_up(claim)

    def _claim_locked(self, garbage: list[Any]) -> list[Lease]:
        """New loans, under their old holders' names, in place of the lost ones."""
        ledger = self._core.ledger
        lost = [e for e in ledger.entries if e.bound and e.loan and not _is_alive(e)]
        lost += [entry for entry in self._dropped_locked(garbage) if entry not in lost]
        self._core.counters.reclaimed += len(lost)
        claims = []
        for entry in lost:
            claims.append(Lease(entry.holder or borrower()))
            ledger.relend(entry, claims[-1], False)
        return claims

    def _dropped_locked(self, garbage: list[Any]) -> list[Entry]:
        """Whose Lease was collected, and whose connection nobody uses either."""
        ledger = self._core.ledger
        dropped: list[Entry] = []
        for entry in ledger.entries:
            if not entry.loan or entry.owner() is not None:
                continue
            if _references(entry) > OWN_REFERENCES:
                # Lent by getconn(), or a cursor is read still. Next time, if only ours were left.
                garbage += _unread(entry)
            else:
                dropped.append(entry)
        return dropped

    def _report(self, claim: Lease) -> None:
        """Say once for each place in the code that it loses connections."""
        core, entry = self._core, claim.entry
        place = core.observer.place(entry.stack)
        if place in self._logged or len(self._logged) >= PLACES:
            return
        self._logged.add(place)
        logger.warning(
            "pool %r: a connection was never given back and has been reclaimed; it was borrowed"
            " at %s. End each thread that uses the database with connections.close_all().\n%s",
            core.name, place or "an unknown place", "\n".join(core.observer.lines(entry.stack)),
        )  # fmt: skip


def _references(entry: Entry) -> int:
    """How many refer to its connection, the entry among them."""
    return sys.getrefcount(entry.connection)


def _unread(_entry: Entry) -> list[Any]:
    """What only its session refers to: nothing, that has weak references to named cursors."""
    return []


def _alone() -> Entry:
    """One whose connection nobody else refers to."""
    entry = Entry(0, 0.0)
    entry.connection = object()
    return entry


# The entry's and the session's, and those that asking makes.
OWN_REFERENCES = _references(_alone())


def _is_alive(entry: Entry) -> bool:
    return entry.holder is None or entry.holder.alive
