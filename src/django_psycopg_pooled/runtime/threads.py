"""Threads started when there is work, and ended when there is none."""

import heapq
import itertools
import math
import threading
from collections import deque

from django_psycopg_pooled.clock import Clock
from django_psycopg_pooled.runtime.protocol import Task

GONE_S = 0.002
FORK_S = 5.0  # no fork takes longer, from pause() on; its end may go unsaid
LINGER_S = 2.0  # how long a thread without work stays, in case more comes


class ThreadRuntime:
    """The workers of one pool; each lives while there is work for it, and a little longer.

    At most *standing* threads linger; while more tasks are submitted than threads are free, more
    are started: the pool submits no more connects at once than it has slots.

    Guards: `_lock` guards every other attribute.
    Invariant: a submitted task has a free thread waiting for it or a new one started for it, so it
    never waits behind another task's connect.
    Lock order: taken last; no other lock is taken, and no task runs, while it is held.

    All threads are daemons: they never keep the process from its end.
    """

    threaded = True

    def __init__(self, name: str, standing: int, clock: Clock) -> None:
        self._name = name
        self._standing = standing
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        # Reentrant, since stop() may be called by the garbage collector in the midst of the others.
        self._lock = threading.RLock()
        self._tasks: deque[Task] = deque()
        self._timers: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count()
        self._free: deque[threading.Lock] = deque()  # one signal for each thread that waits
        self._threads: set[threading.Thread] = set()
        self._stopped = False
        self._paused_until = -math.inf  # on the clock

    def submit(self, task: Task) -> None:
        with self._lock:
            stopped = self._stopped
            if not stopped:
                self._tasks.append(task)
            start = not stopped and self._wake_locked()
        if stopped:
            task()  # it finds the pool closed, and cleans up after itself
        elif start:
            self._start()

    def call_at(self, when: float, task: Task) -> None:
        with self._lock:
            if self._stopped:
                return
            first = not self._timers or when < self._timers[0][0]
            heapq.heappush(self._timers, (when, next(self._numbers), task))
            # A thread that waits for a later timer must look again; after fork() there is none.
            start = (first or not self._threads) and self._wake_locked()
        if start:
            self._start()

    def run_due(self, now: float) -> float:
        return math.inf

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._timers.clear()
            while not self._wake_locked():
                pass

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = self._clock.monotonic() + seconds + FORK_S
            while not self._wake_locked():
                pass
            others = self._threads - {threading.current_thread()}
        deadline = self._clock.monotonic() + seconds
        for thread in others:
            if thread.is_alive():  # not one that another thread is just about to start
                thread.join(max(deadline - self._clock.monotonic(), 0.0))
        if others:
            # join() returns a moment before the system's thread is gone, and Python counts those.
            never = threading.Lock()
            never.acquire()
            self._clock.wait(never, GONE_S)

    def resume(self) -> None:
        with self._lock:
            self._paused_until = -math.inf
            # Python counts threads just now, to warn of them. Beside others one more is no news.
            others = threading.active_count() > 1
            start = bool(self._tasks) or (others and bool(self._timers) and not self._free)
        if start:
            self._start()

    def _wake_locked(self) -> bool:
        """Wake a free thread; True if there is none, so that one must be started."""
        if not self._free:
            return True
        self._free.pop().release()  # not the first: it may keep the timers
        return False

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"pool-{self._name}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            # No thread can be had: the interpreter is ending, or the system's limit is reached.
            # The work is done here rather than lost.
            self._run_ready()

    def _work(self) -> None:
        try:
            while self._run_ready() and self._rest():
                pass
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _run_ready(self) -> bool:
        """Run what is due; False if the runtime has stopped."""
        while True:
            with self._lock:
                task = self._take_locked(self._clock.monotonic())
                stopped = self._stopped
            if task is None:
                return not stopped
            task()

    def _take_locked(self, now: float) -> Task | None:
        if self._tasks:
            return self._tasks.popleft()
        if self._timers and self._timers[0][0] <= now:
            return heapq.heappop(self._timers)[2]
        return None

    def _rest(self) -> bool:
        """Wait for work; False if this thread should end."""
        signal = threading.Lock()
        signal.acquire()
        with self._lock:
            seconds = self._rest_for_locked(self._clock.monotonic())
            if seconds is None:
                return False
            self._free.append(signal)
        if self._clock.wait(signal, seconds):
            return True
        with self._lock:
            if signal not in self._free:
                return True  # woken just as the time ran out
            self._free.remove(signal)
            # Critical section: the last free thread stays for the timers, if there are any.
            due = bool(self._timers) and self._timers[0][0] <= self._clock.monotonic()
            return due or (bool(self._timers) and not self._free)

    def _rest_for_locked(self, now: float) -> float | None:
        """Seconds to wait for work; None if this thread is not needed any more."""
        if self._tasks:
            return 0.0
        if self._stopped or now < self._paused_until:
            return None
        due = max(self._timers[0][0] - now, 0.0) if self._timers else math.inf
        if self._timers and not self._free:
            return due
        # Each that rests keeps the first timer: any of them may be woken for something else.
        return min(due, LINGER_S) if len(self._free) < self._standing else None
