"""The statements of this process, each judged once."""

import threading
from collections.abc import Callable
from typing import Any

from django_psycopg_pooled.forking import restart_in_child
from django_psycopg_pooled.statements.effects import effects_of

LONGEST = 20_000  # characters; a book of longer ones could fill the memory


class Record:
    """What is known of one text; lives as long as the book keeps it."""

    __slots__ = ("effects", "family", "plan", "sql")

    def __init__(self, sql: str) -> None:
        self.sql = sql
        # A plain number: each operation on an IntFlag costs more than looking the record up.
        self.effects = int(effects_of(sql))
        # Its figures, shared with all texts of the same fingerprint; found when it is counted.
        self.family: Any = None
        # How it is prepared; None if it is not to be. The room `preparing` knows more.
        self.plan: Any = None


class Book:
    """At most *capacity* records; texts in use survive a flood of texts that come once.

    Two generations of half the capacity: what is looked up gets into the young one, and when that
    is full it becomes the old one, whose texts are forgotten. So a text stays that is used once
    while half the capacity of others come.

    A hit in the young one takes no lock, with the GIL or without it: `_young` is replaced whole, a
    dict's get() beside another thread's insertion is safe, and whoever still reads the replaced one
    gets a record that is kept, if no longer in that place.

    Guards: `_lock` guards writing, and reading `_old`.
    Invariant: a text has one record as long as it is kept, and is in one generation only.
    """

    def __init__(
        self, capacity: int = 2000, plan_for: Callable[[Record], Any] | None = None
    ) -> None:
        """*plan_for* gives each new record its plan."""
        if capacity < 2:
            raise ValueError(f"capacity is {capacity!r}; it must be 2 or more.")
        self._half = capacity // 2
        self._plan_for = plan_for
        self._young: dict[str, Record] = {}
        self._old: dict[str, Record] = {}
        self.restart()
        restart_in_child(self)

    def look_up(self, sql: str) -> Record:
        """The record of *sql*. Any thread; waits for other threads' dict operations only.

        Worst case: that of effects_of(), for a text that is not kept.
        """
        record = self._young.get(sql)
        return self._find(sql) if record is None else record

    def records(self) -> list[Record]:
        """All that are kept. Any thread; waits for other threads' dict operations only."""
        with self._lock:
            return [*self._young.values(), *self._old.values()]

    def restart(self) -> None:
        """In a child of fork(): a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._young) + len(self._old)

    def _find(self, sql: str) -> Record:
        if len(sql) > LONGEST:
            return self._of_long(sql)
        with self._lock:
            record = self._kept_locked(sql)
        if record is not None:
            return record
        judged = Record(sql)  # outside the lock: this may take long
        if self._plan_for is not None:
            judged.plan = self._plan_for(judged)
        with self._lock:
            # Critical section: another thread may have judged it as well; the first one's counts.
            return self._kept_locked(sql) or self._keep_locked(judged)

    def _of_long(self, sql: str) -> Record:
        """A record that is not kept, and keeps no more of a text than its fingerprint shows."""
        record = Record(sql)
        record.sql = sql[: LONGEST + 1]
        return record

    def _kept_locked(self, sql: str) -> Record | None:
        record = self._young.get(sql)
        if record is None and (record := self._old.pop(sql, None)):
            self._keep_locked(record)
        return record

    def _keep_locked(self, record: Record) -> Record:
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
        self._young[record.sql] = record
        return record
