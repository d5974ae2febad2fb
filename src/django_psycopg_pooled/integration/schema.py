"""Changing the schema, as far as prepared statements have to know of it."""

from types import TracebackType
from typing import Any

from django.db import connections

from django_psycopg_pooled.integration.database_pool import DatabasePool


class PooledSchemaEditor:
    """Mixed in before a schema editor; lives for one `with connection.schema_editor()`.

    Other processes' statements, and those of other threads that run meanwhile, heal by themselves
    when the server refuses them; to be told spares this process the errors inside transactions.
    """

    connection: Any

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


def forget_plans_after_migrations(sender: object, using: str, **kwargs: Any) -> None:
    """A receiver of post_migrate: RunSQL changes the schema without a schema editor's exit."""
    pool = getattr(connections[using], "pool", None)
    if isinstance(pool, DatabasePool):
        pool.forget_plans()
