"""What each thread is working on, in the user's words: 'GET /checkout', 'task shop.tasks.bill'."""

from threading import get_ident, local
from weakref import WeakValueDictionary

LONGEST = 120


class _Label:
    """One thread's label; lives as long as the thread, or the greenlet.

    Only its own thread writes it; others read what is there.
    """

    __slots__ = ("__weakref__", "text")

    def __init__(self) -> None:
        self.text: str | None = None


# The thread's own storage alone keeps a label, so that it goes with the thread: nothing piles up,
# and a new thread that gets a dead one's number does not get its label too.
_mine = local()
_by_thread: "WeakValueDictionary[int, _Label]" = WeakValueDictionary()


def set_label(text: str | None) -> None:
    """Say what this thread is working on from now on; None for nothing. Does not block.

    What is not printable is left out, and 120 characters are kept: a URL is a stranger's text, and
    goes into logs and terminals.
    """
    label: _Label | None = getattr(_mine, "label", None)
    if label is None:
        label = _mine.label = _by_thread[get_ident()] = _Label()
    label.text = None if text is None else _clean(text[:LONGEST])


def label_of(thread_id: int) -> str | None:
    """What that thread is working on; None if it did not say, or is gone. Any thread."""
    label = _by_thread.get(thread_id)
    return None if label is None else label.text


def _clean(text: str) -> str:
    return text if text.isprintable() else "".join(filter(str.isprintable, text))
