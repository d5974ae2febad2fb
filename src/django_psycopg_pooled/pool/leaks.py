"""Telling of loans that last too long."""

import logging
import math
from collections import deque
from typing import Any

from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry

logger = logging.getLogger(__name__)


class Leaks:
    """Logs a loan of one pool once when it passes leak_threshold, and once when it ends."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ended: deque[tuple[Any, float]] = deque()

    def look(self) -> None:
        """Log the loans that have passed the threshold since the last look. Does not block."""
        core = self._core
        limit = core.options.leak_threshold
        if not limit:
            return
        with core.lock:
            now = core.clock.monotonic()
            late = [
                entry
                for entry in core.ledger.entries
                if entry.loan and entry.reported_at == math.inf and now - entry.since >= limit
            ]
            for entry in late:
                entry.reported_at = now
                core.ledger.calm = False
        for entry in late:
            self._report(entry, now - entry.since)

    def ended_locked(self, entry: Entry, lasted: float) -> None:
        """A loan that was logged has ended after all. tell_ends() follows, without the lock."""
        entry.reported_at = math.inf
        self._ended.append((entry.stack, lasted))

    def tell_ends(self) -> None:
        """Log the ends. Does not block."""
        while self._ended:
            stack, lasted = self._ended.popleft()
            logger.warning("pool %r: the connection borrowed at %s was given back after %.1f s",
                           self._core.name, self._place(stack), lasted)  # fmt: skip

    def _report(self, entry: Entry, age: float) -> None:
        core = self._core
        holder = entry.holder
        now = core.observer.now(holder.ident) if holder is not None and holder.alive else None
        present = f", which is now at {core.observer.place(now)}" if now else ""
        logger.warning(
            "pool %r: a connection has been lent for %.1f s (leak_threshold is %g s) to thread %r,"
            " borrowed at %s%s\n%s",
            core.name, age, core.options.leak_threshold, holder.name if holder else "?",
            self._place(entry.stack), present,
            "\n".join(core.observer.lines(entry.stack)),
        )  # fmt: skip

    def _place(self, stack: Any) -> str:
        return self._core.observer.place(stack) or "an unknown place"
