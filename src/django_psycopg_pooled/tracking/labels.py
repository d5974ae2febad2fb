"""What is being worked on, in the user's words: 'GET /orders/<int:pk>/', 'task shop.tasks.bill'."""

import re
from asyncio import _get_running_loop, current_task
from contextvars import ContextVar
from threading import get_ident, local
from typing import Any
from weakref import WeakValueDictionary, ref

LONGEST = 120
# What asyncio calls a task that nobody has named: a number, which says nothing of the work.
NAMELESS = re.compile(r"Task-\d+")


class Work:
    """One request, task or command; lives until it has ended and its statements are counted.

    The object, not its text, is the unit in which repeated statements are counted. The text may be
    completed while it runs. Written by whoever does the work; anybody may read.
    """

    __slots__ = ("__weakref__", "outer", "task", "text", "unfinished")

    def __init__(self, text: str, *, unfinished: bool = False, outer: "Work | None" = None) -> None:
        self.text = _clean(text)
        self.unfinished = unfinished  # complete() will say the rest
        self.outer = outer  # what goes on when this has ended
        # The asyncio task that does it. Not its name, which its code may yet give; and weakly: this
        # may live longer, and whoever has a task has all that its coroutine has.
        self.task: ref[Any] | None = None

    def complete(self, text: str) -> None:
        """Say all of an unfinished text; does nothing to one that is finished."""
        if self.unfinished:
            self.text = _clean(text)
            self.unfinished = False

    def title(self) -> str:
        """Its text, and what its asyncio task is called if somebody has named that."""
        task = None if self.task is None else self.task()
        name = str(getattr(task, "get_name", str)())  # a factory's own kind of task may have none
        if not name or NAMELESS.fullmatch(name):
            return self.text
        return f"{self.text}, asyncio task {_clean(name)}"


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
    work.task = _this_task()


def end() -> None:
    """This thread's work has ended; what it was part of goes on."""
    work = current()
    begin(None if work is None else work.outer)


def set_label(text: str | None) -> None:
    """Say what this thread is working on from now on; None for nothing. Does not block.

    What is not printable is left out, and 120 characters are kept: a stranger may have chosen the
    text, and it goes into logs and terminals.
    """
    if text is None:
        begin(None)
        return
    work, before = Work(text), current()
    # In a thread that works for a task, its name is known by whatever it did before.
    work.task = _this_task() or (before.task if before is not None else None)
    begin(work)


def label_of(thread_id: int) -> str | None:
    """What that thread is working on; None if it did not say, or is gone. Any thread."""
    label = _by_thread.get(thread_id)
    work = None if label is None else label.work
    return None if work is None else work.title()


def _this_task() -> "ref[Any] | None":
    """The asyncio task that runs in this thread. Never raises."""
    loop = _get_running_loop()  # not get_running_loop(): most threads have none, which costs 1 us
    task = None if loop is None else current_task(loop)
    try:
        return None if task is None else ref(task)
    except TypeError:  # a factory's own kind of task
        return None


def _clean(text: str) -> str:
    text = text[:LONGEST]
    return text if text.isprintable() else "".join(filter(str.isprintable, text))
