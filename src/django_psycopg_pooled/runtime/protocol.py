"""What the pool asks of whoever runs its background work."""

from collections.abc import Callable
from typing import Protocol

Task = Callable[[], None]


class Runtime(Protocol):
    """Runs tasks, now or later. Tasks handle their own exceptions. Any thread."""

    # Whether tasks run by themselves. If not, the pool's callers run them: see run_due().
    threaded: bool

    def submit(self, task: Task) -> None:
        """Run *task* soon, without waiting for it; in this thread if the runtime has stopped."""

    def call_at(self, when: float, task: Task) -> None:
        """Run *task* at *when* on the pool's clock, or soon after."""

    def run_due(self, now: float) -> float:
        """Run in this thread what is due, if tasks do not run by themselves.

        Returns when to call again, on the pool's clock: inf for never.
        """

    def stop(self) -> None:
        """Drop the timers, finish what was submitted, end the threads. For good; does not wait."""

    def pause(self, seconds: float) -> None:
        """Before fork(): end the threads that have no work. Waits for their end, that long at most.

        Python warns of a fork() beside other threads, and is right to.
        """

    def resume(self) -> None:
        """After fork(), in the parent: go on.

        In a process that has no other thread, timers run again after the next call_at() only.
        """

    def forget(self) -> None:
        """Be as new, in a child of fork(), where the parent's threads do not exist."""
