"""What must start anew in a child of fork(), and what must not begin beside one."""

import os
import threading
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Protocol


class Restartable(Protocol):
    """Something with a lock, or with what only the parent should count."""

    def restart(self) -> None:
        """In a child of fork(), where no other thread lives: make new locks, forget the parent."""


_known: "weakref.WeakSet[Restartable]" = weakref.WeakSet()


def restart_in_child(thing: Restartable) -> None:
    """Have thing.restart() called in each child of fork(), as long as *thing* lives."""
    _known.add(thing)


class Forks:
    """The threads that are about to fork; lives as long as the owner whose lock guards it.

    Each counts for a bounded time only. Python prints what a signal's handler raises in a hook of
    fork(), and goes on: the end of a fork may never be told.
    """

    def __init__(self) -> None:
        self._until: list[tuple[int, float]] = []  # which thread, and when it counts no more

    def begin(self, now: float, seconds: float) -> None:
        """This thread is about to fork, and will have done so in *seconds*."""
        self._until = [each for each in self._until if now < each[1]]
        self._until.append((threading.get_ident(), now + seconds))

    def end(self) -> None:
        """This thread has forked. Does nothing if the begin was never told."""
        me = threading.get_ident()
        mine = [each for each in self._until if each[0] == me]
        if mine:
            self._until.remove(mine[-1])  # a signal's handler may fork in the midst of a fork

    def by_others(self, now: float) -> bool:
        """Whether a thread but this one, which does something else now, is about to fork."""
        me = threading.get_ident()
        return any(thread != me and now < until for thread, until in self._until)


def carried_through(work: Callable[[], None]) -> Callable[[], None]:
    """*work*, a hook of fork(), which is begun once more if it was interrupted.

    What a signal's handler raises in a hook, as Ctrl-C's does, Python prints; then it goes on.
    """

    @wraps(work)
    def in_two_attempts() -> None:
        try:
            work()
        except BaseException:
            work()
            raise

    return in_two_attempts


@carried_through
def _restart_all() -> None:
    for thing in list(_known):
        thing.restart()


os.register_at_fork(after_in_child=_restart_all)
