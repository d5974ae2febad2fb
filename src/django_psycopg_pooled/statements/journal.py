"""What the statements of one pool have cost, without a lock or arithmetic while they run."""

import atexit
import logging
import math
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, NamedTuple

from django_psycopg_pooled.clock import Clock
from django_psycopg_pooled.forking import restart_in_child
from django_psycopg_pooled.statements.book import Record
from django_psycopg_pooled.statements.figures import Family
from django_psycopg_pooled.statements.fingerprint import fingerprint

logger = logging.getLogger(__name__)

FOLD_AT = 256  # executions that wait to be counted; more would be older than anybody needs
# So many wait if a worker was asked to count them and has not come: it gets no turn, or was killed.
# Whoever executes then counts FOLD_AT of them, which takes less than a millisecond.
FOLD_HERE = 4096
PATIENCE_S = 0.5  # for a worker that counts while the interpreter exits
CAPACITY = 2000
OTHER = "other"
_KEPT = 0.75  # of the families, when there are too many


class Execution(NamedTuple):
    """One statement that has run; lives until it is counted."""

    record: Record
    unit: object  # in which repetitions count: `work`, or something that stands for the loan
    work: Any  # the request, task or command: see tracking.labels; None if unknown
    place: tuple[CodeType, int]  # the innermost line of the user's code, raw
    elapsed: float  # seconds in the driver
    rows: int  # as the driver says; negative if it does not know
    waited: float  # seconds for a connection, if this was the first statement of its loan
    mark: int | None  # of the parameters: different for different ones; None if it cannot be told
    sqlstate: str | None  # of the error; None if there was none
    prepared: bool


class Journal:
    """Counts the executions of one pool by the fingerprint of their text; lives as long as it.

    Who executes a statement appends it to `trail`, and calls full() when FOLD_AT are there. A
    deque's append() and popleft() are atomic, with the GIL and without it, so every execution is
    counted once, by whoever holds the lock just then.

    Guards: `_lock` guards `_families` and what is in them, `_other`, and taking from `trail`.
    `_asked` needs no guard: who asks a second time for the same does no harm.
    An interruption leaves no lock taken: only `with` takes them.
    Invariant: at most *capacity* families; what the forgotten ones had is in `_other`.
    """

    def __init__(self, clock: Clock, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._wall = clock.wall
        self._capacity = capacity
        # Raw tuples in the order of Execution: to make a NamedTuple takes four times as long.
        self.trail: deque[tuple[Any, ...]] = deque()
        # Seconds from which on a statement is reported at once, to slow(); inf for none.
        self.slow_after = math.inf
        self.slow: Callable[[Execution, Any], None] = _nobody
        # Has a worker thread do something; where there are none it is done at once.
        self.in_background: Callable[[Callable[[], None]], None] = _at_once
        # Called after each fold, without the lock, by who has time for it: never by a statement's
        # thread where there are workers.
        self.after_fold: Callable[[], None] = _nothing
        # How often one piece of work may execute a statement before it is suspect.
        self.n_plus_one = 10
        self._families: dict[str, Family] = {}
        self._has_failed = False
        self.restart()
        restart_in_child(self)
        _known.add(self)

    def restart(self) -> None:
        """In a child of fork(): locks that nobody holds, and nothing of what the parent did."""
        self._lock = threading.Lock()
        self._asked = False  # somebody in the background is to count, or is at it
        self.trail.clear()
        self._forget()

    def full(self) -> None:
        """FOLD_AT are in the trail: see that they are counted. In the thread of a statement.

        Worst case: FOLD_AT executions counted here, or those of another thread waited for that
        came to it at the same moment.
        """
        if not self._asked:
            self._asked = True
            done = False
            try:
                self.in_background(self._fold_as_asked)
                done = True
            finally:
                if not done:  # interrupted, as a greenlet may be
                    self._asked = False
        elif len(self.trail) >= FOLD_HERE and not self._lock.locked():
            with self._lock:
                self._fold_locked(FOLD_AT)

    def fold(self) -> None:
        """Count what has piled up; leaves it to another thread if one is at it.

        Blocks only for one that came to it at the same moment.
        """
        if not self._lock.locked():
            with self._lock:
                self._fold_locked()
            self.after_fold()

    def finish(self) -> None:
        """See that what was asked for is done: the interpreter's exit ends workers anywhere.

        Waits for the worker, PATIENCE_S at the longest.
        """
        deadline = self._clock.monotonic() + PATIENCE_S
        while self._asked and self._clock.monotonic() < deadline:
            self._clock.sleep(0.001)
        if self._asked:
            self.fold()

    def failed(self, error: BaseException) -> None:
        """Counting has failed, which must not fail what is counted. Logged once: a defect."""
        if not self._has_failed:
            self._has_failed = True
            # Without its context, which would be the error of the statement, with its parameters.
            error.__context__ = None
            logger.error("statements could not be counted; said once", exc_info=error)

    def families(self) -> list[Family]:
        """Copies of all figures as they are now, the one of OTHER too if there is any.

        Any thread; blocks while another one folds. Worst case: 2,000 copies, some milliseconds.
        """
        with self._lock:
            self._fold_locked()
            found: Iterable[Family] = [*self._families.values(), self._other]
            return [family.copy() for family in found if family.calls]

    def reset(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self._fold_locked()
            self._forget()

    def _forget(self) -> None:
        for family in self._families.values():
            family.forgotten = True  # records know it still
        self._families = {}
        self._other = Family(OTHER)

    def _fold_as_asked(self) -> None:
        """What full() asks for. Never raises."""
        try:
            self.fold()
        except Exception as error:
            self.failed(error)
        finally:
            self._asked = False

    def _fold_locked(self, at_most: int = sys.maxsize) -> None:
        now = self._wall()
        trail = self.trail
        # Not for ever, if others append faster than this counts.
        for _ in range(min(len(trail), at_most)):
            execution = trail.popleft()
            record: Record = execution[0]
            family = record.family
            if family is None or family.forgotten:
                family = record.family = self._family_locked(record.sql)
            family.add(execution, now, self.n_plus_one)

    def _family_locked(self, sql: str) -> Family:
        text = fingerprint(sql)
        family = self._families.get(text)
        if family is None:
            if len(self._families) >= self._capacity:
                self._make_room_locked()
            family = self._families[text] = Family(text)
        return family

    def _make_room_locked(self) -> None:
        """Forget those that were used least since the last time."""
        by_use = sorted(self._families.values(), key=lambda family: family.recent, reverse=True)
        kept = int(len(by_use) * _KEPT)
        for family in by_use[kept:]:
            family.forgotten = True
            self._other.merge(family)
        for family in by_use[:kept]:
            family.recent = 0
        self._families = {family.text: family for family in by_use[:kept]}


def _nobody(execution: Execution, stack: Any) -> None:
    """Nobody wants to hear of slow statements."""


def _nothing() -> None:
    """Nothing is to be done."""


def _at_once(task: Callable[[], None]) -> None:
    task()


_known: "weakref.WeakSet[Journal]" = weakref.WeakSet()


def _finish_all() -> None:
    for journal in list(_known):
        journal.finish()


atexit.register(_finish_all)
