"""Django's refusal of async code, asked for at less cost."""

from asyncio import _get_running_loop  # the public one raises where there is none
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.utils.asyncio import async_unsafe


def stock_method(owner: type[Any], name: str) -> Callable[..., Any] | None:
    """Django's own method; None if something else has been put in its place already."""
    method: Callable[..., Any] = getattr(owner, name)
    inner = getattr(method, "__wrapped__", None)
    # By where their code is from: functools.wraps() copies names.
    is_stock = _home(method) == async_unsafe.__module__ and _home(inner) == owner.__module__
    return method if is_stock else None


def _home(function: Any) -> str:
    return str(getattr(function, "__globals__", {}).get("__name__", ""))


def guarded(owner: type[Any], name: str) -> Any:
    """A method of *owner* that refuses async code, which finds out without an exception.

    Django's async_unsafe() has one raised and caught at each call where no loop runs, three times
    for a cursor. Where a loop runs, Django's own decides. Whoever puts something else in the
    method's place, as pytest-django does to forbid the database, is heeded.
    """
    stock = stock_method(owner, name)
    unguarded = getattr(stock, "__wrapped__", None)

    @wraps(getattr(owner, name))
    def cheaper(self: Any, *args: Any) -> Any:
        present = getattr(owner, name)
        if unguarded is not None and present is stock and _get_running_loop() is None:
            return unguarded(self, *args)
        return present(self, *args)

    return cheaper
