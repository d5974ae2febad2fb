"""Looking for transactions in which nothing happens, while a test's with block runs."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from django_psycopg_pooled.drivers.protocol import OPEN_TRANSACTION
from django_psycopg_pooled.facts.pool import ConnectionSnapshot
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.pool.views import connection_facts

CALLERS = 2  # of the user's line where the thread is; beyond are the test's own and its runner
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.002, 0.05

Loan = tuple[Entry, int]


@dataclass(frozen=True, slots=True)
class Idle:
    """One time that a transaction did nothing."""

    pool: str
    facts: ConnectionSnapshot
    idle_s: float


class IdleWatch:
    """Finds transactions that begin and are idle too long in one with block; lives as long as it.

    Not looked at: what was open at the start, and what Django's TestCase opens around each test;
    the blocks that begin inside of these are.

    pools        which pools to look at, asked for anew at each look
    longer_than  seconds; what is idle for a fifth longer, at most 0.05 s longer, is surely found

    One thread looks after start(), the caller's after stop(), so that nothing here needs a lock.
    """

    def __init__(self, pools: Callable[[], Iterable[Pool]], longer_than: float) -> None:
        self._pools = pools
        self._limit = longer_than
        self._pause = min(max(longer_than / 5, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="idle watch", daemon=True)
        # Of loans in a transaction at the start: when it began, and how many blocks were open.
        self._before: dict[Loan, tuple[float | None, int]] = {}
        self._since: dict[Loan, float] = {}  # when it was first seen that something had begun
        self._found: dict[tuple[Loan, float], Idle] = {}

    def start(self) -> None:
        """Look from now on, in a thread. Does not block."""
        self.note()
        self._thread.start()

    def note(self) -> None:
        """Remember what is open now, which does not count."""
        for pool in self._pools():
            for entry, loan in _loans(pool._core):
                session = entry.session
                if session.transaction_at is not None or _is_open(pool._core, entry):
                    own = session.own_blocks()
                    self._before[entry, loan] = session.transaction_at, len(own)

    def stop(self) -> None:
        """Look no more by itself. Blocks for one look."""
        self._over.set()
        self._thread.join()

    def settle(self) -> None:
        """After stop(): wait until each idle transaction has gone on, or was idle for too long.

        Blocks for *longer_than* and one pause at the longest.
        """
        waited = 0.0
        while self.look() and waited <= self._limit:
            threading.Event().wait(self._pause)
            waited += self._pause

    @property
    def found(self) -> list[Idle]:
        """What was idle for too long, the longest first."""
        return sorted(self._found.values(), key=lambda idle: -idle.idle_s)

    def left_open(self) -> list[Idle]:
        """Transactions that this thread has begun and not ended: nobody else will end them."""
        here = threading.get_ident()
        return [
            _idle(pool._core, entry, pool._core.clock.monotonic() - since)
            for pool in self._pools()
            for entry, loan in _loans(pool._core)
            if (since := self._idle_since(pool._core, entry, loan)) is not None
            and entry.holder is not None
            and (entry.holder.ident, entry.holder.alive) == (here, True)
        ]

    def look(self) -> bool:
        """Look once; True if something is idle, and not for too long yet. Does not block."""
        pending = False
        for pool in self._pools():
            core = pool._core
            for entry, loan in _loans(core):
                since = self._idle_since(core, entry, loan)
                if since is None:
                    continue
                idle_s = core.clock.monotonic() - since
                if idle_s < self._limit:
                    pending = True
                else:
                    self._keep(core, (entry, loan), since, idle_s)
        return pending

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            self.look()

    def _keep(self, core: Core, loan: Loan, since: float, idle_s: float) -> None:
        known = self._found.get((loan, since))
        # The facts are those of the first look: later the thread may be elsewhere.
        idle = replace(known, idle_s=idle_s) if known else _idle(core, loan[0], idle_s)
        self._found[loan, since] = idle

    def _idle_since(self, core: Core, entry: Entry, loan: int) -> float | None:
        """Since when nothing happens in what has begun in this block; None if something does."""
        session = entry.session
        around = self._blocks_around(entry, loan)
        has_begun = around is None or len(session.own_blocks()) > around
        if not has_begun or not _is_open(core, entry):
            self._since.pop((entry, loan), None)
            return None
        first_seen = self._since.setdefault((entry, loan), core.clock.monotonic())
        if session.executes:
            return None  # a statement runs
        quiet_since = entry.since if session.last is None else session.ended
        # The last statement of what is around an inner block may be long ago.
        return quiet_since if around is None else max(quiet_since, first_seen)

    def _blocks_around(self, entry: Entry, loan: int) -> int | None:
        """How many atomic blocks of the transaction do not count; None if all of it counts."""
        began, blocks = self._before.get((entry, loan), (None, None))
        if blocks is not None and began == entry.session.transaction_at:
            return blocks
        return 0 if entry.session.is_tests else None


def _loans(core: Core) -> list[Loan]:
    with core.lock:
        return [(entry, entry.loan) for entry in core.ledger.entries if entry.loan]


def _is_open(core: Core, entry: Entry) -> bool:
    return core.driver.status(entry.connection) in OPEN_TRANSACTION


def _idle(core: Core, entry: Entry, idle_s: float) -> Idle:
    facts = connection_facts(core, entry)
    stacks = dict(facts.stacks)
    now = stacks.pop("now", ())
    if facts.now_at in now and facts.thread_id != threading.get_ident():  # else it is here
        stacks["now"] = now[: now.index(facts.now_at) + CALLERS + 1]
    if entry.session.is_tests:
        stacks.pop("transaction", None)  # it is the TestCase's: says nothing
        facts = replace(facts, atomic_depth=len(entry.session.own_blocks()))
    return Idle(core.name, replace(facts, stacks=stacks), idle_s)
