"""Cursors that tell when they are closed or gone, where release="transaction"."""

import weakref
from collections.abc import Callable
from typing import Any

from django.db.backends.postgresql.base import CursorDebugWrapper
from django.db.backends.utils import CursorWrapper


class OpenCursor(weakref.ref[Any]):
    """A driver's cursor of one loan; its wrapper keeps it until the cursor is closed or gone.

    Not Django's cursor: that goes before its time if all that is kept of it is what the driver's
    returned, as by cursor().copy(...), cursor().execute(...) or cursor().copy_expert.
    """

    __slots__ = ("loan",)

    # The `ref` of its Lease, which it must not keep alive; None if there was none.
    loan: Callable[[], object] | None

    # Cursors of others may be equal, or have no hash.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def forgetting(wrapper: Any) -> Callable[[Any], None]:
    """What the end of a cursor calls: in any thread, at any line; *wrapper* may be gone by then."""
    reference = weakref.ref(wrapper)

    def forget(cursor: OpenCursor) -> None:
        found = reference()
        if found is not None:
            found._cursor_closed(cursor)

    return forget


class _Releasing:
    """Mixed in before one of Django's cursor wrappers; tells the wrapper when it is closed."""

    db: Any
    cursor: Any

    def __init__(self, cursor: Any, db: Any) -> None:
        super().__init__(cursor, db)  # type: ignore[call-arg]
        lease = db._lease
        try:
            opened = OpenCursor(cursor, db._forget_cursor)
        except TypeError:  # somebody's own, which cannot be referred to so
            opened = OpenCursor(self, db._forget_cursor)
        opened.loan = None if lease is None else lease.ref
        db._open_cursors.add(opened)
        self._open = opened

    def close(self) -> None:
        try:
            self.cursor.close()
        finally:
            self.db._cursor_closed(self._open)


class ReleasingCursor(_Releasing, CursorWrapper):
    """Django's cursor."""


class ReleasingDebugCursor(_Releasing, CursorDebugWrapper):
    """Django's cursor with DEBUG = True."""
