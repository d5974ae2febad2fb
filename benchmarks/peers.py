"""Whom we compare with: one row a peer, with the settings it gets.

A peer that does not work with the Django or the driver in use stays in the list: its row then
shows the error that a user would see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Driver = Literal["psycopg", "psycopg2"]
Settings = Mapping[str, Any]

STOCK = "django.db.backends.postgresql"


@dataclass(frozen=True)
class PoolSize:
    """How many connections a pool keeps and how many it may have."""

    min_size: int
    max_size: int


@dataclass(frozen=True)
class Peer:
    """One way to hold connections; a row of the table below.

    engine     Django's ENGINE; where it differs by driver, {driver} stands for "2" or "3"
    settings   from the pool's size to what DATABASES gets beside the address
    keeps      the thread keeps its connection between operations instead of closing it
    greenlets  runs under gevent's monkey patches, as its documentation asks
    """

    name: str
    engine: str
    settings: Callable[[PoolSize], Settings]
    keeps: bool = False
    greenlets: bool = False

    def database(self, size: PoolSize, driver: Driver) -> dict[str, Any]:
        """What DATABASES gets beside the server's address."""
        engine = self.engine.format(driver={"psycopg": "3", "psycopg2": "2"}[driver])
        return {"ENGINE": engine, **self.settings(size)}


def _unpooled(size: PoolSize) -> Settings:
    return {"CONN_MAX_AGE": 0}


def _persistent(size: PoolSize) -> Settings:
    return {"CONN_MAX_AGE": None}


def _option_pool(size: PoolSize) -> Settings:
    return {"OPTIONS": {"pool": {"min_size": size.min_size, "max_size": size.max_size}}}


def _option_pool_checked(size: PoolSize) -> Settings:
    return {**_option_pool(size), "CONN_HEALTH_CHECKS": True}


def _queue_pool(size: PoolSize) -> Settings:
    # Without overflow, because SQLAlchemy closes the connections above POOL_SIZE at once.
    return {"POOL_OPTIONS": {"POOL_SIZE": size.max_size, "MAX_OVERFLOW": 0}}


def _gevent_pool(size: PoolSize) -> Settings:
    return {
        "CONN_MAX_AGE": 0,
        "OPTIONS": {"MAX_CONNS": size.max_size, "REUSE_CONNS": size.max_size},
    }


UNPOOLED = "unpooled"
PERSISTENT = "persistent"
NATIVE = "native pool"
NATIVE_CHECKED = "native+checks"
OURS = "ours"

PEERS: Sequence[Peer] = (
    Peer(UNPOOLED, STOCK, _unpooled),
    Peer(PERSISTENT, STOCK, _persistent, keeps=True),
    Peer(NATIVE, STOCK, _option_pool),
    Peer(NATIVE_CHECKED, STOCK, _option_pool_checked),
    Peer("db-connection-pool", "dj_db_conn_pool.backends.postgresql", _queue_pool),
    Peer(
        "db-geventpool",
        "django_db_geventpool.backends.postgresql_psycopg{driver}",
        _gevent_pool,
        greenlets=True,
    ),
    Peer("pg-real-pool", "django_pg_real_pool", _option_pool),
    Peer(OURS, "django_psycopg_pooled.backends.postgresql", _option_pool),
)

# Not a way that anybody would hold connections: only the cycle's, beside OURS.
UNWATCHED = Peer("ours, unwatched", "benchmarks.unwatched", _option_pool)

LEGEND = (
    "unpooled: CONN_MAX_AGE=0. persistent: CONN_MAX_AGE=None and never closed, a connection a"
    " thread. native: Django's own OPTIONS['pool'], without and with CONN_HEALTH_CHECKS."
    " db-connection-pool: SQLAlchemy's QueuePool with its default ping at each checkout."
    " db-geventpool: its threads are greenlets. pg-real-pool: Django's pool, given back with each"
    " cursor. ours: default options."
)


def named(names: Sequence[str]) -> list[Peer]:
    """The peers of these names, in the table's order; all of them for no names.

    Raises ValueError for a name that is not in the table.
    """
    unknown = set(names) - {peer.name for peer in PEERS}
    if unknown:
        known = ", ".join(peer.name for peer in PEERS)
        raise ValueError(f"no such peer: {', '.join(sorted(unknown))}; there are: {known}")
    return [peer for peer in PEERS if not names or peer.name in names]
