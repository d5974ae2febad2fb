"""One server connection in the pool, and one loan of it."""

import math
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from django_psycopg_pooled.drivers.protocol import Watch
from django_psycopg_pooled.pool.borrower import Borrower
from django_psycopg_pooled.pool.states import IllegalMove, State
from django_psycopg_pooled.session import Session


class Entry:
    """One server connection; lives from the reservation of its slot until it is closed.

    Guarded by the pool's lock, but for what only its present owner touches: whoever opens, checks,
    borrows or closes it is alone with `connection` and `watch`.
    Times are seconds on the pool's clock.
    """

    __slots__ = (
        "__weakref__",
        "announced",
        "bound",
        "connection",
        "fresh_until",
        "holder",
        "loan",
        "number",
        "opened_at",
        "owner",
        "proven_at",
        "reported_at",
        "retire_at",
        "server_pid",
        "session",
        "since",
        "stack",
        "state",
        "uses",
        "watch",
    )

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.state = State.OPENING
        self.connection: Any = None
        self.watch: Watch = _nothing_to_watch
        self.server_pid: int | None = None
        self.loan = 0  # the number of the present loan, which is that of its uses; 0 for none
        self.holder: Borrower | None = None  # who has borrowed it, or was the last to
        self.bound = False  # only the holder's thread can use it, so it is free when that has ended
        self.stack: Any = None  # where it was borrowed, raw; see Observer
        self.reported_at = math.inf  # when its present loan was logged as too long
        # What is responsible for it while it is not idle; weak. If that is gone, it is lost: the
        # Lease of a loan was dropped, or a call was interrupted.
        self.owner: Callable[[], object | None] = _nobody
        self.session = Session()
        self.opened_at = now
        self.since = now  # when it was last lent or given back
        self.proven_at = now  # when the server was last known to be behind it
        self.retire_at = math.inf
        # Until then it may be lent after a look at the socket alone.
        self.fresh_until = math.inf
        self.uses = 0
        self.announced = False  # Django's connection_created was sent for this session

    def move(self, state: State) -> None:
        """Change the state. Under the pool's lock. Raises IllegalMove: a defect of ours."""
        if not self.state.next_bits & state.bit:
            raise IllegalMove(f"connection {self.number}: {self.state.name} to {state.name}")
        self.state = state


class User(Protocol):
    """Who keeps the connection of a Lease beside it, as Django's wrapper does."""

    connection: Any

    def loses(self, lease: "Lease") -> None:
        """Forget the connection: nobody could give it back, so the pool has. No I/O."""


class Lease:
    """One loan of one connection; lives from checkout to checkin, or is used for the next loan.

    It counts only while `entry.loan == number`: a loan that was ended, or that fork() left to the
    parent, can give nothing back, however late its holder tries. The entry does not refer to it, so
    that both go at once when nobody needs them, without the garbage collector.
    """

    __slots__ = ("__weakref__", "connection", "entry", "holder", "number", "ref", "user")

    def __init__(self, holder: Borrower) -> None:
        self.holder = holder
        self.ref = weakref.ref(self)  # for the entry, made once
        self.user: Callable[[], User | None] = _nobody
        self.entry = NONE
        self.number = 1  # of a loan that `entry` never had
        self.connection: Any = None

    def forget(self) -> None:
        """Refer to the connection no more: whoever does seems to use it, and keeps it open."""
        self.entry, self.number, self.connection = NONE, 1, None

    @classmethod
    def present(cls, entry: Entry, holder: Borrower) -> "Lease":
        """One more Lease of the loan that *entry* is in."""
        lease = cls(holder)
        lease.entry, lease.number, lease.connection = entry, entry.loan, entry.connection
        return lease

    @property
    def ended(self) -> bool:
        """Whether the connection is not this borrower's any more."""
        return self.entry.loan != self.number


def _nothing_to_watch(_ms: int) -> bool:
    return False


def _nobody() -> None:
    return None


# The entry of a lease without a loan.
NONE = Entry(0, 0.0)
