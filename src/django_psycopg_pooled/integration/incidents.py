"""Keeping what was seen when something went wrong."""

import threading
from collections import deque

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.facts.incidents import Incident, Kind
from django_psycopg_pooled.forking import restart_in_child

KEPT = 10
AGAIN_S = 60.0  # how long the same kind is not noted again
QUERIES = 20


class Incidents:
    """The last ten of one pool; lives as long as it.

    Guards: `_lock` guards `_noted_at`. The deque's own operations are atomic.
    """

    def __init__(self) -> None:
        self.kept: deque[Incident] = deque(maxlen=KEPT)
        self._noted_at: dict[Kind, float] = {}
        self.restart()
        restart_in_child(self)

    def restart(self) -> None:
        """In a child of fork(): a lock that nobody holds; what befell the parent stays known."""
        self._lock = threading.Lock()

    def is_due(self, kind: Kind) -> bool:
        """Whether one of this *kind* is to be kept, for the last is a minute old. Any thread."""
        with self._lock:
            return self._is_due_locked(kind)

    def is_new(self, kind: Kind) -> bool:
        """is_due(), and take the turn: of many requests that fail at once, one has the trouble."""
        with self._lock:
            due = self._is_due_locked(kind)
            if due:
                self._noted_at[kind] = SYSTEM_CLOCK.monotonic()
            return due

    def _is_due_locked(self, kind: Kind) -> bool:
        noted_at = self._noted_at.get(kind)
        return noted_at is None or SYSTEM_CLOCK.monotonic() - noted_at >= AGAIN_S
