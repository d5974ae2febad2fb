"""What a pool is for: the settings that decide whether two wrappers may share connections."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from django.db.backends.base.base import NO_DB_ALIAS

Settings = Mapping[str, Any]

TARGET = ("HOST", "PORT", "NAME")
# What django-tenants writes into the settings at each request, for all threads: whose it was. Were
# it heeded, each change of tenant would make a new pool.
FLEETING = "SCHEMA"


@dataclass(frozen=True)
class Identity:
    """A copy of what a connection and its session are made from; equal ones may share a pool.

    Not the alias: a wrapper keeps its alias while NAME changes under it (test databases), and two
    wrappers of one alias may differ in their OPTIONS.
    """

    settings: Settings = field(repr=False)  # a password is among them
    time_zone: str | None

    @classmethod
    def of(cls, settings: Settings, time_zone: str | None) -> Self:
        """A copy as deep as settings are changed in practice: OPTIONS, and `pool` in it."""
        options = dict(settings["OPTIONS"])
        if isinstance(options.get("pool"), Mapping):
            options["pool"] = dict(options["pool"])
        return cls({**_lasting(settings), "OPTIONS": options}, time_zone)

    def fits(self, settings: Settings | None) -> bool:
        """Whether it was made from the like of *settings*."""
        return settings is not None and self.settings == _lasting(settings)

    @property
    def target(self) -> tuple[Any, ...]:
        """The server and database; those who want to drop it need all pools of it closed."""
        return target_of(self.settings)


def _lasting(settings: Settings) -> dict[str, Any]:
    copy = {**settings}
    copy.pop(FLEETING, None)
    return copy


def target_of(settings: Settings) -> tuple[Any, ...]:
    """The server and database that *settings* name; a service file may name them instead."""
    return (*(settings[key] or "" for key in TARGET), settings["OPTIONS"].get("service", ""))


def is_pooled(alias: str, settings: Settings) -> bool:
    """Whether a wrapper lends from a pool: unless OPTIONS["pool"] is False.

    The connection to no particular database, by which Django makes test databases, never does.
    """
    pool = settings["OPTIONS"].get("pool")
    return alias != NO_DB_ALIAS and (pool is None or isinstance(pool, Mapping) or bool(pool))
