"""Our backend with its watching switched off, for its whole process: what lending alone costs."""

from typing import Any

from django_psycopg_pooled.backends.postgresql.base import DatabaseWrapper
from django_psycopg_pooled.integration import sessions
from django_psycopg_pooled.integration.observer import CodeObserver

__all__ = ["DatabaseWrapper"]


def _unwatched(cursor_class: Any) -> Any:
    return cursor_class


def _nowhere() -> None:
    return None


# Before the first connection, whose cursors are made by what `sessions` puts in, and before the
# first pool, which keeps the observer's method.
vars(sessions)["watched"] = _unwatched
CodeObserver.here = staticmethod(_nowhere)  # type: ignore[arg-type]
