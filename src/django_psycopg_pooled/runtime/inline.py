"""No threads: what is submitted waits until a caller of the pool has time for it."""

import heapq
import itertools
import math
from collections import deque

from django_psycopg_pooled.runtime.protocol import Task


class InlineRuntime:
    """The runtime of a pool with num_workers=0, and of unit tests.

    Needs no lock: deque and heap are used only by operations that one bytecode does, and a task
    that two threads want is taken by one of them.
    """

    threaded = False

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._tasks: deque[Task] = deque()
        self._timers: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count()

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def call_at(self, when: float, task: Task) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), task))

    def run_due(self, now: float) -> float:
        while (task := self._next(now)) is not None:
            task()
        return self._timers[0][0] if self._timers else math.inf

    def stop(self) -> None:
        self._timers.clear()

    def pause(self, seconds: float) -> None:
        """There are no threads."""

    def resume(self) -> None:
        """There were no threads."""

    def _next(self, now: float) -> Task | None:
        try:
            return self._tasks.popleft()
        except IndexError:
            pass
        try:
            due, _, task = heapq.heappop(self._timers)
        except IndexError:
            return None
        if due <= now:
            return task
        self.call_at(due, task)
        return None
