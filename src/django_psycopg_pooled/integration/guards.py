"""Django's refusal of async code, asked for at less cost."""

from asyncio import _get_running_loop  # the public one raises where there is none
from collections.abc import Callable
from functools import wraps
from typing import Any


def guarded(owner: type[Any], name: str) -> Any:
    """A method of *owner* that refuses async code, which finds out without an exception.

    Django's async_unsafe() has one raised and caught at each call where no loop runs, three times
    for a cursor. Where a loop runs, Django's own decides. Whoever puts something else in the
    method's place, as pytest-django does to forbid the database, is heeded.
    """
    stock: Callable[..., Any] = getattr(owner, name)
    unguarded: Callable[..., Any] = getattr(stock, "__wrapped__", stock)

    @wraps(unguarded)
    def cheaper(self: Any, *args: Any) -> Any:
        present = getattr(owner, name)
        if present is stock and _get_running_loop() is None:
            return unguarded(self, *args)
        return present(self, *args)

    return cheaper
