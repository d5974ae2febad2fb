"""`with prepare():` and `@prepare`: what runs inside is prepared from its first execution on."""

import inspect
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")

_depth: ContextVar[int] = ContextVar("prepare", default=0)


class Listener(Protocol):
    def blocks_are_used(self) -> None:
        """The first block of this process was entered."""


class _Use:
    """Whether any block was ever entered in this process; until then nobody looks for one."""

    def __init__(self) -> None:
        self.seen = False
        self.listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


_use = _Use()


def inside() -> bool:
    """Whether the caller runs in a block: of its thread, or its asyncio task."""
    return _use.seen and _depth.get() > 0


def are_used() -> bool:
    return _use.seen


def listen(listener: Listener) -> None:
    _use.listeners.add(listener)


class Block:
    """A block of code whose statements are prepared; holds nothing, so one serves all threads."""

    def __enter__(self) -> Self:
        if not _use.seen:
            _use.seen = True
            for listener in list(_use.listeners):
                listener.blocks_are_used()
        _depth.set(_depth.get() + 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _depth.set(_depth.get() - 1)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def waited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return waited  # type: ignore[return-value]

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return called


_block = Block()


@overload
def prepare() -> Block: ...
@overload
def prepare(function: Callable[P, R]) -> Callable[P, R]: ...
def prepare(function: Callable[P, R] | None = None) -> Any:
    """`with prepare():`, `@prepare` or `@prepare()`; also around async code.

    Nothing happens for a pool whose option `prepare` is False.
    """
    return _block if function is None else _block(function)
