"""Making cursors: on the path of every statement, so with fewer questions than stock asks."""

from asyncio import _get_running_loop  # the public one raises where there is none
from threading import get_ident
from typing import Any

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from django_psycopg_pooled.execution.cursors import watch_named
from django_psycopg_pooled.integration.guards import guarded, stock_method
from django_psycopg_pooled.integration.release import EarlyRelease
from django_psycopg_pooled.pool.pool import Pool

# Where others are in their places, those are called: pytest-django forbids the database so.
CURSOR = stock_method(BaseDatabaseWrapper, "cursor")
CREATE_CURSOR = stock_method(DatabaseWrapper, "create_cursor")
ENSURE_CONNECTION = stock_method(BaseDatabaseWrapper, "ensure_connection")


class QuickCursors(EarlyRelease):
    """The part of a wrapper that makes cursors.

    What they are, and when they are refused, is as in stock.
    """

    _guarded_cursor = guarded(BaseDatabaseWrapper, "cursor")
    _create_cursor = guarded(DatabaseWrapper, "create_cursor")

    # Whether a subclass has an ensure_connection() of its own.
    _asks_its_own = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._asks_its_own = cls.ensure_connection is not BaseDatabaseWrapper.ensure_connection

    def cursor(self) -> Any:
        if BaseDatabaseWrapper.cursor is not CURSOR or _get_running_loop() is not None:
            return self._guarded_cursor()
        return self._cursor()

    def _cursor(self, name: str | None = None) -> Any:
        """Stock's, with what it calls in line: it is on the path of every statement."""
        if (
            self._releases_early is not False
            or (self.in_atomic_block and self.closed_in_transaction)
            or BaseDatabaseWrapper.ensure_connection is not ENSURE_CONNECTION
            or self._asks_its_own
        ):
            return super()._cursor(name)
        try:
            if self.connection is None:
                self.connect()
            elif self.health_check_enabled:
                self.close_if_health_check_failed()
                self.ensure_connection()
            return self._prepare_cursor(self.create_cursor(name))
        except BaseException:
            with self.wrap_database_errors:  # not around it all: to enter and leave takes 0.2 us
                raise

    def create_cursor(self, name: str | None = None) -> Any:
        """Stock's, which with psycopg 3 compares the connection's time zone each time."""
        lease, connection = self._lease, self.connection
        if (
            name
            or lease is None
            or connection is not lease.connection
            or DatabaseWrapper.create_cursor is not CREATE_CURSOR
            or _get_running_loop() is not None
        ):
            return self._create_cursor(name)
        if is_psycopg3:
            if self._zone is self.timezone:
                return connection.cursor()
        elif not connection._pool_touched:
            cursor = connection._pool_cursor()
            cursor.tzinfo_factory = self.tzinfo_factory if settings.USE_TZ else None
            return cursor
        return self._create_cursor(name)

    def chunked_cursor(self) -> Any:
        """A cursor on the server; in this process if a pooler could part it from its session."""
        pool: Pool | None = self.pool
        if pool is not None and pool.options.pooler:
            return self.cursor()
        cursor = super().chunked_cursor()
        if self._lease is not None:
            watch_named(cursor.cursor)
        return cursor

    def validate_thread_sharing(self) -> None:
        """Stock's, which takes a lock to read what matters in the wrong thread only."""
        if self._thread_ident != get_ident():
            super().validate_thread_sharing()
