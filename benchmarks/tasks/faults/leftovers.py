"""What one borrower leaves in a session or on the connection, and whether the next one finds it.

The pool has one connection, so the next borrower gets the same. Each kind is left alone: a pool
that clears all of a session, because it noticed one kind, has not noticed the others.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.backends.postgresql.psycopg_any import IsolationLevel, is_psycopg3

PATIENCE_S = 0.5


@dataclass(frozen=True)
class Kind:
    """One kind of state: the SQL that leaves it, and the SQL that is true if it is there.

    alias   who looks: the next borrower, or somebody else ('plain'), before there is one
    """

    leave: str
    seen: str
    alias: str = "default"


KINDS: Mapping[str, Kind] = {
    "SET statement_timeout": Kind(
        "SET statement_timeout = '54321ms'",
        "SELECT current_setting('statement_timeout') = '54321ms'",
    ),
    "SET search_path": Kind(
        "SET search_path TO elsewhere", "SELECT current_setting('search_path') = 'elsewhere'"
    ),
    "temporary table": Kind(
        "CREATE TEMP TABLE left_behind (n int)",
        "SELECT to_regclass('pg_temp.left_behind') IS NOT NULL",
    ),
    "advisory lock": Kind(
        "SELECT pg_advisory_lock(4711)",
        "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON database = pg_database.oid"
        " WHERE locktype = 'advisory' AND objid = 4711 AND datname = current_database())",
        alias="plain",
    ),
    "LISTEN": Kind(
        "LISTEN left_behind", "SELECT 'left_behind' IN (SELECT pg_listening_channels())"
    ),
    "set_config() in a SELECT": Kind(
        "SELECT set_config('shop.tenant', '7', false)",
        "SELECT coalesce(current_setting('shop.tenant', true), '') = '7'",
    ),
    "PREPARE": Kind(
        "PREPARE left_behind AS SELECT 1",
        "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'left_behind')",
    ),
    "WITH HOLD cursor": Kind(
        "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1",
        "SELECT EXISTS (SELECT FROM pg_cursors WHERE name = 'left_behind')",
    ),
    # Last, because as this role one may do less.
    "SET ROLE": Kind("SET ROLE pg_monitor", "SELECT current_user = 'pg_monitor'"),
}


def in_session() -> dict[str, bool]:
    """Each kind of SQL state, and whether it was still there."""
    return {name: _left(kind) for name, kind in KINDS.items()}


def on_connection() -> dict[str, bool]:
    """Each attribute of the driver's connection that was changed, and whether it still was."""
    return {name: _kept(name, value) for name, value in _attributes().items()}


def _left(kind: Kind) -> bool:
    with connections["default"].cursor() as cursor:
        cursor.execute(kind.leave)
    connections["default"].close()
    end = time.monotonic() + PATIENCE_S
    while _is_seen(kind):
        # A pool may tidy up in the background, but nobody should have to borrow for it.
        if kind.alias == "default" or time.monotonic() > end:
            return True
        time.sleep(0.01)
    return False


def _is_seen(kind: Kind) -> bool:
    with connections[kind.alias].cursor() as cursor:
        cursor.execute(kind.seen)
        [seen] = cursor.fetchone()
    connections[kind.alias].close()
    return bool(seen)


def _attributes() -> dict[str, Any]:
    changed: dict[str, Any] = {"isolation_level": IsolationLevel.SERIALIZABLE}
    if is_psycopg3:
        from psycopg.rows import dict_row

        changed["row_factory"] = dict_row
    return changed


def _kept(name: str, value: Any) -> bool:
    setattr(_raw(), name, value)
    connections["default"].close()
    kept = bool(getattr(_raw(), name) == value)
    connections["default"].close()
    return kept


def _raw() -> Any:
    """The driver's connection, borrowed if need be; SQLAlchemy's pool lends it in a wrapper."""
    connections["default"].ensure_connection()
    lent = connections["default"].connection
    return getattr(lent, "driver_connection", lent)
