"""The only module that asks the operating system for the time, or waits."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Time as the pool sees it. Any thread."""

    def monotonic(self) -> float:
        """Seconds that never go back; for durations and deadlines."""

    def wall(self) -> float:
        """Seconds since 1970, for people: it may be set back."""

    def wait(self, signal: threading.Lock, seconds: float) -> bool:
        """Block until somebody releases *signal* (True) or *seconds* have passed (False)."""

    def sleep(self, seconds: float) -> None:
        """Block for *seconds*."""


class SystemClock:
    """The machine's clock."""

    # Functions of C, kept as they are: a method of ours around them would cost more than they do.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)

    @staticmethod
    def wait(signal: threading.Lock, seconds: float) -> bool:
        return signal.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))


SYSTEM_CLOCK = SystemClock()
