"""What is being worked on, in the user's words: 'GET /orders/<int:pk>/', 'task shop.tasks.bill'."""

from contextvars import ContextVar
from threading import get_ident, local
from weakref import WeakValueDictionary

LONGEST = 120


class Work:
    """One request, task or command; lives until it has ended and its statements are counted.

    The object, not its text, is the unit in which repeated statements are counted. The text may be
    completed while it runs. Written by whoever does the work; anybody may read.
    """

    __slots__ = ("__weakref__", "outer", "text", "unfinished")

    def __init__(self, text: str, *, unfinished: bool = False, outer: "Work | None" = None) -> None:
        self.text = _clean(text)
        self.unfinished = unfinished  # complete() will say the rest
        self.outer = outer  # what goes on when this has ended

    def complete(self, text: str) -> None:
        """Say all of an unfinished text; does nothing to one that is finished."""
        if self.unfinished:
            self.text = _clean(text)
            self.unfinished = False


class _Label:
    """What one thread, or greenlet, works on; lives as long as that.

    Only its own thread writes it; others read what is there.
    """

    __slots__ = ("__weakref__", "work")

    def __init__(self) -> None:
        self.work: Work | None = None


# A context's, so that work goes along where asgiref and asyncio carry it to other threads.
_current: ContextVar[Work | None] = ContextVar("django_psycopg_pooled_work", default=None)
# The work of this thread's statements; None if unknown. C's own function: 16 ns.
current = _current.get

# For those who look from another thread. The thread's own storage alone keeps a label, so that it
# goes with the thread: nothing piles up, and a new thread that gets a dead one's number does not
# get its label too.
_mine = local()
_by_thread: "WeakValueDictionary[int, _Label]" = WeakValueDictionary()


def begin(work: Work | None) -> None:
    """From now on this thread, and all that this context goes to, does *work*. Does not block."""
    _current.set(work)
    label: _Label | None = getattr(_mine, "label", None)
    if label is None:
        label = _mine.label = _by_thread[get_ident()] = _Label()
    label.work = work


def enter(work: Work) -> None:
    """This context is part of *work*, which another thread has begun. Does not block."""
    _current.set(work)


def end() -> None:
    """This thread's work has ended; what it was part of goes on."""
    work = current()
    begin(None if work is None else work.outer)


def set_label(text: str | None) -> None:
    """Say what this thread is working on from now on; None for nothing. Does not block.

    What is not printable is left out, and 120 characters are kept: a stranger may have chosen the
    text, and it goes into logs and terminals.
    """
    begin(None if text is None else Work(text))


def label_of(thread_id: int) -> str | None:
    """What that thread is working on; None if it did not say, or is gone. Any thread."""
    label = _by_thread.get(thread_id)
    work = None if label is None else label.work
    return None if work is None else work.text


def _clean(text: str) -> str:
    text = text[:LONGEST]
    return text if text.isprintable() else "".join(filter(str.isprintable, text))
