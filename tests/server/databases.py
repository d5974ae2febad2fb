"""Aliases for one test, and what must be true of their pools after it."""

import copy
import gc
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from django.db import connections

from devtools.postgres import PostgresServer
from django_psycopg_pooled import pools
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.pool.pool import Pool
from tests.server.support import DATABASE, ENGINE, assert_adds_up, eventually, wrapper

ABSENT: Any = object()
END_ALL = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
_numbers = itertools.count(1)


class Databases:
    """Makes the aliases of one test, and takes them away after it."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._before: dict[str, Any] = dict(connections.settings)

    def settings(
        self, pool: Any = ABSENT, *, options: Mapping[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """An entry for DATABASES; *more* are its keys, *options* go beside `pool` in OPTIONS."""
        entry = {"ENGINE": ENGINE, **self.server.django_settings(DATABASE), **more}
        entry["OPTIONS"] = dict(options or {})
        if pool is not ABSENT:
            entry["OPTIONS"]["pool"] = pool
        return entry

    def add(
        self,
        pool: Any = ABSENT,
        *,
        alias: str | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> PooledWrapper:
        """A new configured alias, or 'default' anew; this thread's wrapper of it."""
        alias = alias or f"db{next(_numbers)}"
        self.configure(alias, self.settings(pool, options=options, **more))
        return wrapper(alias)

    def configure(self, alias: str, entry: dict[str, Any]) -> None:
        """Put *entry* into DATABASES as Django does for a settings file's."""
        filled = connections.configure_settings({"default": {}, alias: copy.copy(entry)})
        connections.settings[alias] = filled[alias]
        if hasattr(connections._connections, alias):  # type: ignore[attr-defined]
            del connections[alias]

    def remove(self) -> None:
        """Close what the test has borrowed and forget its aliases."""
        for alias in set(connections.settings) | set(self._before):
            if hasattr(connections._connections, alias):  # type: ignore[attr-defined]
                connections[alias].close()
                del connections[alias]
        connections.settings.clear()
        connections.settings.update(self._before)


def looked_after(databases: Databases) -> Iterator[Databases]:
    """*databases* for one test, after which every pool must be whole and every session ended."""
    yield databases
    databases.remove()
    try:
        for pool in pools.all():
            assert_all_came_back(pool)
        gc.collect()
        eventually(lambda: databases.server.backends() == 0)
    finally:  # so that the next test does not fail for this one
        for pool in pools.all():
            pool.close()
        databases.server.psql(END_ALL)


def assert_all_came_back(pool: Pool) -> None:
    """Nothing of *pool* is lent, its books are right, and close() ends all its connections."""
    eventually(lambda: not pool.snapshot().count("lent"))
    assert_adds_up(pool)
    pool.close()
    eventually(lambda: pool.snapshot().size == 0)
