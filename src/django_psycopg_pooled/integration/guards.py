"""Django's refusal of async code, asked for at less cost."""

from asyncio import _get_running_loop  # the public one raises where there is none
from collections.abc import Callable
from functools import wraps
from inspect import getattr_static
from typing import Any

from django.utils.asyncio import async_unsafe


def stock_method(owner: type[Any], name: str) -> Callable[..., Any] | None:
    """Django's own method; None if something else has been put in its place already."""
    method: Callable[..., Any] = getattr(owner, name)
    inner = getattr(method, "__wrapped__", None)
    # By where their code is from: functools.wraps() copies names.
    is_stock = _home(method) == async_unsafe.__module__ and _home(inner) == owner.__module__
    return method if is_stock else None


def bound(owner: type[Any], name: str, instance: Any) -> Callable[..., Any]:
    """*owner*'s method as it stands, of *instance*: as if its class had none of its own."""
    method = getattr_static(owner, name)
    bind = getattr(type(method), "__get__", None)
    found: Callable[..., Any] = method if bind is None else bind(method, instance, type(instance))
    return found


def _home(function: Any) -> str:
    return str(getattr(function, "__globals__", {}).get("__name__", ""))


def guarded(owner: type[Any], name: str) -> Any:
    """A method of *owner* that refuses async code, which finds out without an exception.

    Django's async_unsafe() has one raised and caught at each call where no loop runs, three times
    for a cursor. Where a loop runs, Django's own decides. Whoever puts something else in the
    method's place, as pytest-django does to forbid the database, is heeded.
    """
    first: Callable[..., Any] = getattr(owner, name)
    stock = stock_method(owner, name)
    unguarded: Callable[..., Any] = getattr(stock, "__wrapped__", first)
    detour = f"_in_the_place_of_{name}"

    def by_what_is_there(self: Any, args: tuple[Any, ...]) -> Any:
        if detour in self.__dict__:  # it calls what it found on the instance before it came
            return first(self, *args)
        self.__dict__[detour] = True
        try:
            return bound(owner, name, self)(*args)
        finally:
            del self.__dict__[detour]

    @wraps(first)
    def cheaper(self: Any, *args: Any) -> Any:
        if stock is None or getattr(owner, name) is not stock:
            return by_what_is_there(self, args)
        return (unguarded if _get_running_loop() is None else stock)(self, *args)

    return cheaper
