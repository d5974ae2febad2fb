"""What must start anew in a child of fork()."""

import os
import weakref
from typing import Protocol


class Restartable(Protocol):
    """Something with a lock, or with what only the parent should count."""

    def restart(self) -> None:
        """In a child of fork(), where no other thread lives: make new locks, forget the parent."""


_known: "weakref.WeakSet[Restartable]" = weakref.WeakSet()


def restart_in_child(thing: Restartable) -> None:
    """Have thing.restart() called in each child of fork(), as long as *thing* lives."""
    _known.add(thing)


def _restart_all() -> None:
    for thing in list(_known):
        thing.restart()


os.register_at_fork(after_in_child=_restart_all)
