"""Passwords that change: the option `credentials`."""

from collections.abc import Callable, Mapping
from typing import Any

from django_psycopg_pooled.clock import SYSTEM_CLOCK, Clock
from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.pool.hooks import NamedHook

Source = Callable[[], Any]


class Credentials:
    """What the user's callable returned last, for as long as it may be used; one for each pool.

    Any thread, without a lock: two connects at once may both call it.
    """

    def __init__(self, source: Source, ttl: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._source = NamedHook("credentials", source)
        self._ttl = ttl
        self._clock = clock
        self._kept: tuple[dict[str, Any], float] | None = None  # and until when

    def forget(self) -> None:
        """Ask anew next time: they were refused."""
        self._kept = None

    def params(self) -> dict[str, Any]:
        """Connection parameters to use now. Blocks for as long as the user's callable does.

        Raises what it raises, and OptionsError if it returns neither a string nor a dict.
        """
        kept = self._kept
        if kept is not None and self._clock.monotonic() < kept[1]:
            return kept[0]
        params = _as_params(self._source())
        self._kept = params, self._clock.monotonic() + self._ttl
        return params


def _as_params(given: object) -> dict[str, Any]:
    if isinstance(given, str):
        return {"password": given}
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        return dict(given)
    # Not its value: that may be a password.
    raise OptionsError(
        [f"`credentials` returned {_a(type(given).__name__)}; it must return a password or a dict"
         " of connection parameters, such as {'user': ..., 'password': ...}."]
    )  # fmt: skip


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiouAEIOU" else f"a {noun}"
