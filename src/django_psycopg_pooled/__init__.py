"""A PostgreSQL backend for Django with a connection pool.

DATABASES = {"default": {"ENGINE": "django_psycopg_pooled.backends.postgresql", ...}}

from django_psycopg_pooled import pools
print(pools["default"].as_table())
"""

from typing import TYPE_CHECKING, Any

from django_psycopg_pooled.errors import (
    NotBorrowed,
    OptionsError,
    PoolClosed,
    PoolError,
    PoolTimeout,
    TooManyRequests,
)
from django_psycopg_pooled.version import __version__

if TYPE_CHECKING:
    from django_psycopg_pooled.integration.registry import pools as pools
    from django_psycopg_pooled.preparing.blocks import prepare as prepare

__all__ = [
    "NotBorrowed",
    "OptionsError",
    "PoolClosed",
    "PoolError",
    "PoolTimeout",
    "TooManyRequests",
    "__version__",
    "pools",
    "prepare",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: this package is imported by settings, before Django has any.
    if name == "pools":
        from django_psycopg_pooled.integration.registry import pools

        return pools
    if name == "prepare":
        from django_psycopg_pooled.preparing.blocks import prepare

        return prepare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
