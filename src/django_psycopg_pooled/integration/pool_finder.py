"""The part of a wrapper that finds its pool, and makes it for the first who asks."""

from functools import partial
from typing import Any

from django import get_version
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.postgresql.psycopg_any import IsolationLevel

from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.execution.statements import Statements
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import BINDING, DRIVER
from django_psycopg_pooled.integration.identity import Identity, is_pooled
from django_psycopg_pooled.integration.registry import REGISTRY
from django_psycopg_pooled.integration.sessions import Sessions
from django_psycopg_pooled.integration.stock import StockWrapper
from django_psycopg_pooled.integration.web_server import hint_once
from django_psycopg_pooled.options import PoolOptions

UNKNOWN = object()


class FindsPool(StockWrapper):
    """Knows the pool for the settings as they are now; a change of them leads to another one."""

    # Set on the instance by the first connect: the pool, and the settings that it is for.
    _pool: DatabasePool | None = None
    _identity: Identity | None = None
    # The time zone that every connection of the pool has, with psycopg 3; UNKNOWN before the first.
    _zone: Any = UNKNOWN
    isolation_level: Any

    @property
    def pool(self) -> DatabasePool | None:
        """The Pool that this wrapper borrows from; None if it is not pooled. Does not block.

        Raises ImproperlyConfigured that names everything wrong in OPTIONS["pool"].
        """
        pool, identity = self._pool, self._identity
        if (
            pool is not None
            and identity is not None
            and (identity.settings == self.settings_dict or identity.fits(self.settings_dict))
            and identity.time_zone == self.timezone_name
            and not pool.closed
        ):
            return pool
        return self._find_pool()

    def close_pool(self) -> None:
        """Close every pool of this process for this database, so that it can be copied or dropped.

        Blocks until connects under way have ended, 5 s at the longest. What is borrowed is closed
        when it is given back. The next connect makes a new pool.
        """
        self._pool = self._identity = None
        REGISTRY.close(self.settings_dict)

    def _find_pool(self) -> DatabasePool | None:
        """The pool for the settings as they are now; the long way."""
        self._pool = self._identity = None
        self._zone = UNKNOWN
        if not is_pooled(self.alias, self.settings_dict):
            return None
        self.check_settings()
        identity = Identity.of(self.settings_dict, self.timezone_name)
        options = self._parse_options()
        name = options.name or self.alias
        configured = connections.settings.get(self.alias) is self.settings_dict
        pool = REGISTRY.get(
            name,
            identity,
            partial(self._make_pool, name, identity, options),
            alias=self.alias if configured else None,
        )
        hint_once(self.alias, options.max_size)
        self._pool, self._identity = pool, identity
        self.health_check_enabled = self.settings_dict["CONN_HEALTH_CHECKS"]
        self._zone = self.timezone
        # Stock's attribute. A wrong one is refused where the stock backend reads it, by Sessions.
        level = self.settings_dict["OPTIONS"].get("isolation_level")
        self.isolation_level = IsolationLevel.READ_COMMITTED if level is None else level
        return pool

    def _parse_options(self) -> PoolOptions:
        try:
            return PoolOptions.parse(self.settings_dict["OPTIONS"].get("pool"))
        except OptionsError as error:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]['OPTIONS']['pool']: {error}"
            ) from error

    def _make_pool(self, name: str, identity: Identity, options: PoolOptions) -> DatabasePool:
        statements = Statements(name, DRIVER, BINDING, options, f"django:{get_version()}")
        sessions = Sessions(
            self.__class__, self.alias, identity, self.timezone, options, statements
        )
        return DatabasePool(name, sessions, statements, options)
