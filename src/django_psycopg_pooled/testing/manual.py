"""Time and background work that a test moves by hand. One thread only."""

import math
import threading

from django_psycopg_pooled.runtime.inline import InlineRuntime
from django_psycopg_pooled.runtime.protocol import Task


class ManualRuntime(InlineRuntime):
    """Runs submitted work when a ManualClock moves; to the pool it looks like threads."""

    threaded = True

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def call_at(self, when: float, task: Task) -> None:
        super().call_at(max(when, self.now), task)


class ManualClock:
    """A clock that stands still until advance(), or until somebody waits on it.

    runtime   whose work is run as time passes; an InlineRuntime's is left to the pool's callers
    """

    def __init__(self, runtime: InlineRuntime | None = None) -> None:
        self.now = 1000.0
        self._runtime = runtime if isinstance(runtime, ManualRuntime) else None

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def wait(self, signal: threading.Lock, seconds: float) -> bool:
        """Move time, and the work that is due in it, until *signal* is released or time is up."""
        deadline = self.now + seconds
        while not signal.acquire(blocking=False):
            due = self._run_due()
            if signal.acquire(blocking=False):
                return True
            if due >= deadline:
                self.now = deadline
                return False
            self.now = max(self.now, due)
        return True

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, and run what is due in them, each thing at its time."""
        deadline = self.now + seconds
        while (due := self._run_due()) <= deadline:
            self.now = max(self.now, due)
        self.now = deadline

    def _run_due(self) -> float:
        """Run what is due now; when the next thing is due."""
        if self._runtime is None:
            return math.inf
        self._runtime.now = self.now
        return self._runtime.run_due(self.now)
