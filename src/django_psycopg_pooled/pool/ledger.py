"""Who has which connection: all that the pool's lock guards, and no more."""

import itertools
import math
import weakref
from bisect import insort
from collections import deque
from collections.abc import Iterable
from operator import attrgetter

from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.pool.waiter import Waiter


class Batch(list[Entry]):
    """Connections that one call is responsible for, neither idle nor lent; lives as long as it.

    If it is gone and they are where they were, the call was interrupted, and they are strays.
    """


class Ledger:
    """The pool's books. Every method is called under the pool's lock; none waits or does I/O.

    Invariants: each entry takes one slot until it is closed, so len(entries) never exceeds the
    max_size that held when it was reserved; `idle` holds just the IDLE ones, oldest return first;
    `opening` counts the OPENING ones; while somebody waits nothing is idle, unless the pool is
    paused; `asking` counts the waiters that want a connect.

    An exception that another thread or a signal throws into a call may break them; mend() puts them
    right again.
    """

    def __init__(self) -> None:
        self.entries: set[Entry] = set()
        self.idle: list[Entry] = []
        self.waiting: deque[Waiter] = deque()
        self.opening = 0
        self.asking = 0
        self.paused = False
        self.closed = False
        self.armed = False  # a run of the housekeeper is due some time
        # Nothing of the above, nor a waiter, asks more of a return than to shelve the connection.
        # Who changes that says so at once; the next return that looks says when it is so again.
        self.calm = False
        self._numbers = itertools.count(1)

    @property
    def size(self) -> int:
        """How many slots are taken."""
        return len(self.entries)

    @property
    def lent(self) -> int:
        """How many are LENT. Counted when somebody waits or asks, not by each loan: 30 ns each."""
        return sum(entry.state is State.LENT for entry in self.entries)

    def lend_idle(self, lease: Lease, now: float, bound: bool) -> bool:
        """Lend the newest idle connection; False if there is none to lend.

        Lender.checkout() does this once more, in line.
        """
        if not self.idle or self.paused:
            return False
        self.lend(self.idle.pop(), lease, now, bound)
        return True

    def lend(self, entry: Entry, lease: Lease, now: float, bound: bool) -> None:
        """Lend *entry*, which is in nobody's hands."""
        entry.move(State.LENT)
        entry.since = now
        self.relend(entry, lease, bound)

    def relend(self, entry: Entry, lease: Lease, bound: bool) -> None:
        """A new loan of *entry*, which is lent; whoever had it before can give nothing back."""
        entry.loan = 0
        entry.holder = lease.holder
        entry.bound = bound
        entry.owner = lease.ref
        lease.entry = entry
        lease.connection = entry.connection
        entry.uses = lease.number = number = entry.uses + 1
        entry.loan = number  # at last: who is interrupted before it has no loan

    def end(self, lease: Lease) -> None:
        """End a loan. What becomes of its connection is said by the next call."""
        lease.entry.loan = 0

    def give(self, entry: Entry, now: float) -> bool:
        """Hand *entry* to the first who waits (True), or shelve it.

        Critical section: the only place where a waiter comes to own a connection.
        """
        if not self.waiting or self.paused:
            entry.move(State.IDLE)
            if not self.idle or self.idle[-1].since <= entry.since:
                self.idle.append(entry)
            else:  # back from a check: to its old place, not to the top
                insort(self.idle, entry, key=_since)
            return False
        self.serve(self.next_waiter(), entry, now)
        return True

    def serve(self, waiter: Waiter, entry: Entry, now: float) -> None:
        """Lend *entry*, which is in nobody's hands, to a request that is out of the queue."""
        self.lend(entry, waiter.lease, now, waiter.bound)
        waiter.wake()

    def take(self, entries: Iterable[Entry], state: State) -> Batch:
        """Move connections to *state*, for a caller that will say what becomes of them."""
        batch = Batch(entries)
        owner = weakref.ref(batch)
        for entry in batch:
            if entry.state is State.IDLE and entry in self.idle:
                self.idle.remove(entry)
            entry.owner = owner
            entry.move(state)
        return batch

    def take_all_idle(self, state: State) -> Batch:
        """take() every idle connection."""
        taken, self.idle = self.idle, []
        return self.take(taken, state)

    def reserve(self, now: float) -> Entry:
        """Take a slot for a connection that is to be opened. The caller sets its `owner`."""
        entry = Entry(next(self._numbers), now)
        self.entries.add(entry)
        self.opening += 1
        return entry

    def release(self, entry: Entry) -> None:
        """Free the slot of a connection that is closed, or was never opened."""
        if entry.state is State.OPENING:
            self.opening -= 1
        self.entries.remove(entry)
        entry.move(State.CLOSED)

    def mend(self) -> Batch:
        """Put the counts right, and find what interrupted calls have left; these are to be closed.

        A microsecond or two for ten connections.
        """
        shelved = set(self.idle)
        strays = [entry for entry in self.entries if _is_stray(entry, shelved)]
        batch = self.take((e for e in strays if e.state is not State.CLOSING), State.CLOSING)
        owner = weakref.ref(batch)
        for entry in strays:
            if entry not in batch:
                entry.owner = owner
                batch.append(entry)
        self.opening = sum(entry.state is State.OPENING for entry in self.entries)
        self.asking = sum(waiter.asking for waiter in self.waiting)
        return batch

    def pause(self) -> None:
        """Lend nothing from now on."""
        self.calm = False
        self.paused = True

    def close(self) -> None:
        """Lend nothing any more, and keep nothing that comes back."""
        self.calm = False
        self.closed = True

    def is_calm(self, max_size: int) -> bool:
        """Whether the next return has nothing to see to."""
        if self.waiting or self.paused or self.closed or not self.armed:
            return False
        if len(self.entries) > max_size:
            return False
        return all(entry.reported_at == math.inf for entry in self.entries)

    def disarm(self) -> None:
        """The housekeeper's run is over, or may be due sooner: the next return is to see to it."""
        self.calm = False
        self.armed = False

    def join(self, waiter: Waiter) -> None:
        """Put a request at the end of the queue."""
        self.calm = False
        self.waiting.append(waiter)
        self.asking += waiter.asking

    def ask(self, waiter: Waiter) -> None:
        """The waiter has lost patience: it wants a connect of its own."""
        if not waiter.asking and waiter in self.waiting:
            waiter.asking = True
            self.asking += 1

    def leave(self, waiter: Waiter) -> bool:
        """Take a request out of the queue; False if it was answered and so is out already."""
        try:
            self.waiting.remove(waiter)
        except ValueError:
            return False
        self.asking -= waiter.asking
        return True

    def rejoin(self, waiter: Waiter) -> None:
        """Put a request back at the head of the queue, where it was."""
        self.calm = False
        self.waiting.appendleft(waiter)
        self.asking += waiter.asking

    def next_waiter(self) -> Waiter:
        """Take the first request out of the queue."""
        waiter = self.waiting.popleft()
        self.asking -= waiter.asking
        return waiter


_since = attrgetter("since")


def _is_stray(entry: Entry, shelved: set[Entry]) -> bool:
    if entry.state is State.IDLE:
        return entry not in shelved
    if entry.state is State.LENT:
        return not entry.loan
    return entry.owner() is None
