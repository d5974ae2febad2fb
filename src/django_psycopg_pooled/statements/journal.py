"""What the statements of one pool have cost, without a lock or arithmetic while they run."""

import logging
import math
import threading
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

    Who executes a statement appends it to `trail`, and calls fold() when FOLD_AT are there. A
    deque's append() and popleft() are atomic, with the GIL and without it, so every execution is
    counted once, by whoever holds the lock just then.

    Guards: `_lock` guards `_families` and what is in them, `_other`, and taking from `trail`.
    Invariant: at most *capacity* families; what the forgotten ones had is in `_other`.
    """

    def __init__(self, clock: Clock, capacity: int = CAPACITY) -> None:
        self._wall = clock.wall
        self._capacity = capacity
        # Raw tuples in the order of Execution: to make a NamedTuple takes four times as long.
        self.trail: deque[tuple[Any, ...]] = deque()
        # Seconds from which on a statement is reported at once, to slow(); inf for none.
        self.slow_after = math.inf
        self.slow: Callable[[Execution, Any], None] = _nobody
        # Called after each fold, without the lock.
        self.after_fold: Callable[[], None] = _nothing
        # How often one piece of work may execute a statement before it is suspect.
        self.n_plus_one = 10
        self._families: dict[str, Family] = {}
        self._has_failed = False
        self.restart()
        restart_in_child(self)

    def restart(self) -> None:
        """In a child of fork(): a lock that nobody holds, and nothing of what the parent did."""
        self._lock = threading.Lock()
        self.trail.clear()
        self._forget()

    def fold(self) -> None:
        """Count what has piled up; leaves it to another thread if one is at it. Does not block."""
        if self._lock.acquire(blocking=False):
            try:
                self._fold_locked()
            finally:
                self._lock.release()
            self.after_fold()

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

    def _fold_locked(self) -> None:
        now = self._wall()
        trail = self.trail
        for _ in range(len(trail)):  # not for ever, if others append faster than this counts
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
