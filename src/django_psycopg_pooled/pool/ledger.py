"""Who has which connection: all that the pool's lock guards, and no more."""

import itertools
from bisect import insort
from collections import deque
from operator import attrgetter

from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.pool.waiter import Waiter


class Ledger:
    """The pool's books. Every method is called under the pool's lock; none waits or does I/O.

    Invariants: each entry takes one slot until it is closed, so len(entries) never exceeds the
    max_size that held when it was reserved; `idle` holds just the IDLE ones, oldest return first;
    `lent` and `opening` count the LENT and OPENING ones; while somebody waits nothing is idle,
    unless the pool is paused; `asking` counts the waiters that want a connect.
    """

    def __init__(self) -> None:
        self.entries: set[Entry] = set()
        self.idle: list[Entry] = []
        self.waiting: deque[Waiter] = deque()
        self.lent = 0
        self.opening = 0
        self.asking = 0
        self.paused = False
        self.closed = False
        self.armed = False  # a run of the housekeeper is due some time
        self._numbers = itertools.count(1)

    @property
    def size(self) -> int:
        """How many slots are taken."""
        return len(self.entries)

    def lend_idle(self, now: float, thread_id: int) -> Lease | None:
        """The newest idle connection; None if there is none to lend."""
        if not self.idle or self.paused:
            return None
        # lend() once more, in line: this is on the path of every request.
        entry = self.idle.pop()
        entry.state = State.LENT
        entry.since = now
        entry.thread_id = thread_id
        entry.loan = entry.uses = number = entry.uses + 1
        self.lent += 1
        return Lease(entry, number)

    def lend(self, entry: Entry, now: float, thread_id: int) -> Lease:
        """Lend *entry*, which is in nobody's hands."""
        entry.move(State.LENT)
        entry.since = now
        entry.thread_id = thread_id
        entry.loan = entry.uses = entry.uses + 1
        self.lent += 1
        return Lease(entry, entry.loan)

    def end(self, lease: Lease) -> None:
        """End a loan. What becomes of its connection is said by the next call."""
        lease.entry.loan = 0
        self.lent -= 1

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
        waiter = self.next_waiter()
        waiter.answer(self.lend(entry, now, waiter.thread_id))
        return True

    def take_all_idle(self, state: State) -> list[Entry]:
        """Move every idle connection to *state*, for a caller that will say what becomes of it."""
        taken, self.idle = self.idle, []
        for entry in taken:
            entry.move(state)
        return taken

    def take_idle(self, entry: Entry, state: State) -> None:
        """Move one idle connection to *state*."""
        self.idle.remove(entry)
        entry.move(state)

    def reserve(self, now: float) -> Entry:
        """Take a slot for a connection that is to be opened."""
        entry = Entry(next(self._numbers), now)
        self.entries.add(entry)
        self.opening += 1
        return entry

    def release(self, entry: Entry) -> None:
        """Free the slot of a connection that is closed, or was never opened."""
        if entry.state is State.OPENING:
            self.opening -= 1
        entry.move(State.CLOSED)
        self.entries.remove(entry)

    def join(self, waiter: Waiter) -> None:
        """Put a request at the end of the queue."""
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
        self.waiting.appendleft(waiter)
        self.asking += waiter.asking

    def next_waiter(self) -> Waiter:
        """Take the first request out of the queue."""
        waiter = self.waiting.popleft()
        self.asking -= waiter.asking
        return waiter


_since = attrgetter("since")
