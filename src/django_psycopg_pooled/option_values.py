"""What one option takes: its Spec, and the checking of a value against it."""

import importlib
import inspect
import math
import re
from dataclasses import dataclass
from typing import Any

SQLSTATE = re.compile("[0-9A-Z]{1,5}")


@dataclass(frozen=True)
class Spec:
    """What the table says of one option beside its name, type and default."""

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = True  # may be changed while the pool runs


def checked(name: str, kind: object, value: object, spec: Spec) -> object:
    """*value* as the option *name* of type *kind* takes it. ValueError: a sentence for the user."""
    if kind is bool:
        return _yes_or_no(name, value)
    if kind is int:
        return _number(name, value, spec, whole=True)
    if kind is float:
        return float(_number(name, value, spec, whole=False))
    if kind is str:
        return _word(name, value, spec)
    if name == "evict_on":
        return _sqlstates(value)
    if name == "prepare":
        return _switch(name, value, spec)
    if isinstance(value, str) and value in spec.choices:
        return value
    return _callable(name, value, spec)


def is_int(value: object) -> bool:
    """Whether it is a whole number, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _yes_or_no(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be True or False.")
    return value


def _switch(name: str, value: object, spec: Spec) -> object:
    """One of the choices, the first of which True stands for; False for none; None for either."""
    if value is True:
        return spec.choices[0]
    if value is False or value is None or (isinstance(value, str) and value in spec.choices):
        return value
    allowed = " or ".join([*map(repr, spec.choices), "False", "None"])
    raise ValueError(f"{name} is {value!r}; it must be {allowed}.")


def _number(name: str, value: Any, spec: Spec, *, whole: bool) -> float:
    right = is_int(value) or (not whole and isinstance(value, float) and math.isfinite(value))
    if not right or not _within(value, spec):
        what = "a whole number" if whole else "a number"
        unit = f" of {spec.unit}" if spec.unit else ""
        raise ValueError(
            f"{name} is {value!r}; it must be {what}{unit} from {spec.low:g} to {spec.high:g}."
        )
    return value  # type: ignore[no-any-return]  # an int or a float, as just checked


def _within(value: float, spec: Spec) -> bool:
    return (spec.low is None or value >= spec.low) and (spec.high is None or value <= spec.high)


def _word(name: str, value: object, spec: Spec) -> str:
    if not isinstance(value, str) or (spec.choices and value not in spec.choices):
        allowed = " or ".join(map(repr, spec.choices)) or "a string"
        raise ValueError(f"{name} is {value!r}; it must be {allowed}.")
    return value


def _sqlstates(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    codes = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (None,)
    if not all(isinstance(code, str) and SQLSTATE.fullmatch(code) for code in codes):
        raise ValueError(
            f"evict_on is {value!r}; it must be a list of SQLSTATEs such as '57P01', or their"
            " first characters, such as '08'."
        )
    return codes


def _callable(name: str, value: object, spec: Spec) -> object:
    allowed: list[object] = [*spec.choices, None]
    if name == "check":
        allowed += [True, False]
    if value is None and spec.choices:
        return spec.choices[0]
    if callable(value):
        return _plain(name, value)
    if any(value is other for other in allowed):
        return value
    if isinstance(value, str) and ("." in value or not spec.choices):
        return _imported(name, value)
    also = "".join(f"{other!r}, " for other in allowed)
    raise ValueError(f"{name} is {value!r}; it must be {also}a callable or its dotted path.")


def _imported(name: str, path: str) -> object:
    module, _, attribute = path.rpartition(".")
    if not module or module.startswith("."):  # what is relative has nothing to be relative to
        raise ValueError(
            f"{name} is {path!r}, which cannot be imported: it needs module.name, such as"
            " 'shop.db.set_up'."
        )
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} is {path!r}, which cannot be imported: {error}.") from error
    if not callable(found):
        raise ValueError(f"{name} is {path!r}, which is not callable: {found!r}.")
    return _plain(name, found)


def _plain(name: str, function: object) -> object:
    """*function*, unless it only makes a coroutine, which nobody would run."""
    for each in (function, getattr(function, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            raise ValueError(
                f"{name} is {function!r}, which is async: it would be called, and never run. It"
                " must be a plain function."
            )
    return function
