"""The database settings that the demo compares: one row each, in the order of its table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STOCK = "django.db.backends.postgresql"
OURS = "django_psycopg_pooled.backends.postgresql"


@dataclass(frozen=True)
class Variant:
    """What differs between two ways to connect; everything else in DATABASES is the same."""

    key: str
    title: str
    engine: str
    conn_max_age: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = (
    Variant("stock", "Django, connect per request", STOCK),
    Variant("persistent", "Django, CONN_MAX_AGE=600", STOCK, conn_max_age=600),
    Variant("stock-pool", "Django, OPTIONS pool=True", STOCK, options={"pool": True}),
    Variant("pooled", "django-psycopg-pooled", OURS),
)

# Compared with each other only: what preparing alone does.
PLAIN = Variant("plain", "prepare=False", OURS, options={"pool": {"prepare": False}})
PREPARED = Variant("prepared", 'prepare="auto"', OURS, options={"pool": {"prepare": "auto"}})
ALL = (*VARIANTS, PLAIN, PREPARED)


def variant(key: str) -> Variant:
    """The row named *key*; ValueError names the rows there are."""
    for row in ALL:
        if row.key == key:
            return row
    raise ValueError(f"there is no variant {key!r}; there are {', '.join(v.key for v in ALL)}.")
