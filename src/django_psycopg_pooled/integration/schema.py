"""Changing the schema, as far as prepared statements have to know of it."""

from types import TracebackType
from typing import Any

from django.db import connections

from django_psycopg_pooled.execution.watched import WatchedSession
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.preparing.preparer import AS_IT_IS


class PooledSchemaEditor:
    """Mixed in before a schema editor; lives for one `with connection.schema_editor()`.

    Other processes' statements, and those of other threads that run meanwhile, heal by themselves
    when the server refuses them; to be told spares this process the errors inside transactions.
    """

    connection: Any
    _session: WatchedSession | None = None

    def __enter__(self) -> Any:
        """While it lasts its session runs nothing prepared: what it reads, it has just changed."""
        editor = super().__enter__()  # type: ignore[misc]
        # None if the connection is not open yet, as where no transaction is wanted.
        self._session = getattr(self.connection.connection, "_pool_session", None)
        if self._session is not None:
            self._session.preparer = AS_IT_IS
        return editor

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)  # type: ignore[misc]
        finally:
            pool = self.connection.pool
            if pool is not None:
                pool.forget_plans()
                if self._session is not None:
                    self._session.preparer = pool.preparer


def forget_plans_after_migrations(sender: object, using: str, **kwargs: Any) -> None:
    """A receiver of post_migrate: RunSQL changes the schema without a schema editor's exit."""
    pool = getattr(connections[using], "pool", None)
    if isinstance(pool, DatabasePool):
        pool.forget_plans()
