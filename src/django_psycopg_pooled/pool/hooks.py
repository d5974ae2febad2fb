"""The user's hooks: which option's an error is, and what they must not leave behind."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.options import PoolOptions

# Those whose errors are logged, or reach a request, where nothing else says whose they are.
NAMED = ("configure", "check", "reset", "on_checkout", "on_checkin")
NOTE = "raised by the pool's option "


class NamedHook:
    """One option's callable; lives as long as the options. Any thread, as the callable may.

    What it raises is raised untouched, with a note of the option.
    """

    __slots__ = ("_hook", "_note")

    def __init__(self, option: str, hook: Callable[..., Any]) -> None:
        self._hook = hook
        self._note = f"{NOTE}`{option}`"

    def __repr__(self) -> str:
        return repr(self._hook)

    def __call__(self, *args: object) -> Any:
        try:
            return self._hook(*args)
        except Exception as error:
            if self._note not in getattr(error, "__notes__", ()):  # it may be raised again
                error.add_note(self._note)
            raise


def with_names(options: PoolOptions) -> PoolOptions:
    """*options* with their hooks named; the same ones if they have none."""
    hooks = {name: getattr(options, name) for name in NAMED}
    named: dict[str, Any] = {
        name: NamedHook(name, hook) for name, hook in hooks.items() if callable(hook)
    }
    return replace(options, **named) if named else options


def said(error: BaseException) -> str:
    """The text of *error* for a line of the log, with the option whose hook raised it, if any."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(NOTE)]
    return f"{type(error).__name__}: {error} ({notes[-1]})" if notes else str(error)


def left_open(option: str, pool: str) -> OptionsError:
    """What is raised for a hook that must end its transaction and has not."""
    return OptionsError(
        [f"`{option}` of the pool {pool!r} left a transaction open or autocommit off; end the"
         " transaction in it."]
    )  # fmt: skip
