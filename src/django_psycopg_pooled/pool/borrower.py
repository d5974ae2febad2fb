"""The thread that borrows."""

import sys
import threading
import weakref
from types import FrameType
from typing import Any


class Borrower:
    """One thread of the program, as the pool knows it; outlives the thread in the loans it took.

    Not its ident alone, which the system gives to another thread as soon as this one has ended.
    """

    __slots__ = ("alive", "ident", "name")

    def __init__(self) -> None:
        thread = threading.current_thread()
        self.ident = threading.get_ident()
        self.name = thread.name
        self.alive = True

    def title(self) -> str:
        """Its name for people."""
        return self.name if self.alive else f"{self.name} (ended)"


class _Life:
    """Lives in a thread's own storage, and so goes when the thread does."""

    __slots__ = ("borrower",)

    def __init__(self, borrower: Borrower) -> None:
        self.borrower = borrower

    def __del__(self) -> None:
        self.borrower.alive = False


_local = threading.local()
# By the number that gevent's threading gives a greenlet: where the loans of one are looked at, all
# run in one thread, of which Python knows only the frame that runs.
_greenlets: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()


def borrower() -> Borrower:
    """This thread's. With gevent's patches, this greenlet's."""
    try:
        return _local.borrower  # type: ignore[no-any-return]
    except AttributeError:
        _local.borrower = borrower = Borrower()
        _local.life = _Life(borrower)
        _remember_greenlet(borrower.ident)
        return borrower


def suspended_frame(ident: int) -> FrameType | None:
    """Where the greenlet of that number waits; None if it runs, has ended, or is a thread."""
    greenlet = _greenlets.get(ident)
    frame: FrameType | None = None if greenlet is None else greenlet.gr_frame
    return frame


def _remember_greenlet(ident: int) -> None:
    module = sys.modules.get("greenlet")
    greenlet = None if module is None else module.getcurrent()
    if id(greenlet) == ident:  # else nothing is patched, and the number is a thread's
        _greenlets[ident] = greenlet
