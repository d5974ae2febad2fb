"""Taking back what its borrower can give back no more."""

import logging
import sys
from functools import partial

from django_psycopg_pooled.pool.borrower import borrower
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.returns import Returns
from django_psycopg_pooled.runtime.protocol import Task

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
        self._do_late()
        with core.lock:
            core.reclaim_at = core.clock.monotonic() + AGAIN_S
            strays = core.ledger.mend()
            core.counters.reclaimed += len(strays)
            claims = self._claim_locked()
        if strays:
            logger.warning("pool %r: %d connections were left by interrupted calls and are closed",
                           core.name, len(strays))  # fmt: skip
            core.close_entries(strays)
        for claim, used in claims:
            self._report(claim)
            # Somebody still has a cursor, who may go on with it whoever is lent the connection.
            take = self._returns.give_up if used else self._returns.tidy_up
            self._do(partial(take, claim))

    def _do_late(self) -> None:
        """What finalizers have put off."""
        late = self._core.late
        while late:
            try:
                task = late.popleft()
            except IndexError:  # another thread was faster
                return
            self._do(task)

    def _do(self, task: Task) -> None:
        """In a worker thread, if there are any."""
        if self._core.runtime.threaded:
            self._core.runtime.submit(task)
        else:
            task()

    def _claim_locked(self) -> list[tuple[Lease, bool]]:
        """New loans, under their old holders' names, in place of the lost ones; if used still."""
        ledger = self._core.ledger
        claims = []
        for entry in [e for e in ledger.entries if e.loan and _is_lost(e)]:
            lease, used = entry.owner(), _is_used(entry)
            claims.append((Lease(entry.holder or borrower()), used))
            ledger.relend(entry, claims[-1][0], False)
            if isinstance(lease, Lease) and (user := lease.user()) is not None:
                user.loses(lease)
        self._core.counters.reclaimed += len(claims)
        return claims

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


def _is_lost(entry: Entry) -> bool:
    """Whether its thread has ended; or its Lease was collected, and nobody uses the connection."""
    if entry.bound and entry.holder is not None and not entry.holder.alive:
        # A connection is not closed under a statement that another thread executes.
        return not (entry.session.executes and _is_used(entry))
    return entry.owner() is None and not _is_used(entry)


def _is_used(entry: Entry) -> bool:
    """Whether somebody refers to its connection, as whoever has got a cursor of it does."""
    return _references(entry) > OWN_REFERENCES + _borrowers_references(entry)


def _borrowers_references(entry: Entry) -> int:
    """How many of them are of the Lease of a thread that has ended, and of its wrapper."""
    lease = entry.owner()
    if not isinstance(lease, Lease):
        return 0
    user = lease.user()
    count = int(lease.connection is entry.connection)
    return count if user is None else count + (user.connection is entry.connection)


def _references(entry: Entry) -> int:
    """How many refer to its connection, the entry among them."""
    return sys.getrefcount(entry.connection)


def _alone() -> Entry:
    """One whose connection nobody else refers to."""
    entry = Entry(0, 0.0)
    entry.connection = object()
    return entry


# The entry's, and those that asking makes.
OWN_REFERENCES = _references(_alone())
