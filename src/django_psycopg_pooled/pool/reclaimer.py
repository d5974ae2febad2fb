"""Taking back what its borrower can give back no more."""

import logging
import sys
from collections import deque
from functools import partial

from django_psycopg_pooled.pool.borrower import borrower
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.returns import Returns
from django_psycopg_pooled.pool.states import State

logger = logging.getLogger(__name__)

AGAIN_S = 0.05  # how soon a request that has to wait looks for lost loans once more
PLACES = 1000  # how many places are remembered for having been logged


class Reclaimer:
    """Finds loans of one pool that nobody can end any more; belongs to the pool.

    A thread has ended without close(), its wrapper was collected, or an exception from outside hit
    in the middle of a checkout or checkin. Runs before a request has to wait, while it waits, and
    with the housekeeping.
    """

    def __init__(self, core: Core, returns: Returns) -> None:
        self._core = core
        self._returns = returns
        self._logged: set[str] = set()

    def run(self) -> None:
        """Take back what is lost. Blocks for closes; for more only without worker threads."""
        core = self._core
        with core.lock:
            core.reclaim_at = core.clock.monotonic() + AGAIN_S
            strays = core.ledger.mend()
            core.counters.reclaimed += len(strays)
            claims = self._claim_locked()
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

    def _claim_locked(self) -> list[Lease]:
        """New loans, under their old holders' names, in place of the lost ones."""
        ledger = self._core.ledger
        lost = [e for e in ledger.entries if e.bound and e.loan and not _is_alive(e)]
        lost += [entry for entry in self._dropped_locked() if entry not in lost]
        self._core.counters.reclaimed += len(lost)
        return [ledger.relend(entry, entry.holder or borrower(), False) for entry in lost]

    def _dropped_locked(self) -> list[Entry]:
        """Whose Lease was collected, and whose connection nobody uses either."""
        ledger = self._core.ledger
        dropped: list[Entry] = []
        for _ in range(len(ledger.lost)):
            entry, number = ledger.lost.popleft()
            if entry.loan != number or entry.state is not State.LENT:
                continue
            if _is_in_use(entry):
                ledger.lost.append((entry, number))  # lent by getconn(), or a cursor is read still
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


def _is_in_use(entry: Entry) -> bool:
    """Whether anybody but the pool refers to its connection, or to a cursor that does."""
    return (
        _references(entry) > OWN_REFERENCES + len(entry.session.held)
        or _cursor_references(entry) > OWN_CURSOR_REFERENCES
    )


def _references(entry: Entry) -> int:
    """How many refer to its connection, the entry among them."""
    return sys.getrefcount(entry.connection)


def _cursor_references(entry: Entry) -> int:
    """How many refer to that of its named cursors to which most do, the session among them."""
    return max((sys.getrefcount(cursor) for cursor in entry.session.held), default=0)


def _alone() -> Entry:
    """One whose connection and named cursor nobody else refers to."""
    entry = Entry(0, 0.0, deque())
    entry.connection = object()
    entry.session.held = [object()]
    return entry


# The entry's and the session's, and those that asking makes.
OWN_REFERENCES = _references(_alone())
OWN_CURSOR_REFERENCES = _cursor_references(_alone())


def _is_alive(entry: Entry) -> bool:
    return entry.holder is None or entry.holder.alive
