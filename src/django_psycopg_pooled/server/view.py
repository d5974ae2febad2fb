"""All that the server says of its sessions, in one round trip."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from django_psycopg_pooled.facts.server import (
    AwaitedLock,
    BackendFacts,
    HolderFacts,
    PreparedTransaction,
    ServerFacts,
    Who,
)
from django_psycopg_pooled.server import Query
from django_psycopg_pooled.server.blocking import blocking_trees
from django_psycopg_pooled.server.locks import awaited, strongest_first
from django_psycopg_pooled.server.statements import FACTS, SET_UP

_NAMES = [field.name for field in fields(BackendFacts)]  # FACTS has its columns in this order


def set_up(query: Query) -> None:
    """Give the session behind *query* time limits, so that looking never hangs; one round trip.

    Once for each connection. Not behind a pooler that shares sessions: they would stay.
    """
    query(SET_UP, ())


def read_server(
    query: Query, fingerprint: Callable[[str], str], driver_pid: int | None = None
) -> ServerFacts:
    """The server's sessions now. One round trip; waits for no lock of a user's.

    fingerprint   takes the literals out of a statement. `str` leaves them in: only for people
                  who may see what is in the tables
    driver_pid    the process id that the driver has of the session behind *query*, if known: a
                  pooler in between gives another than the server's

    Raises what *query* raises.
    """
    [(text,)] = query(FACTS, ())
    raw = json.loads(text)
    waits = _Waits(raw)
    redacted = cache(fingerprint)  # for this look: most sessions of a fleet run the same few
    backends = tuple(_backend(row, waits, redacted) for row in raw["backends"])
    behind: dict[Who, list[Who]] = {b.pid: [h.who for h in b.behind] for b in backends if b.behind}
    trees, cycles = blocking_trees(behind)
    pooler_between = driver_pid is not None and driver_pid != raw["pid"]
    return ServerFacts(
        server_pid=raw["pid"],
        database=raw["database"],
        version=raw["version"],
        read_at_us=raw["read_at_us"],
        backends=backends,
        prepared=tuple(PreparedTransaction(*row) for row in raw["prepared"]),
        blocking=trees,
        cycles=cycles,
        pooler_between=pooler_between,
        problems=(
            *_what_is_hidden(backends, raw["role"]),
            *_what_is_between(pooler_between, driver_pid, raw["pid"]),
        ),
    )


class _Waits:
    """What the server says of those who wait, by their process ids; lives for one look."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._rows: dict[int, dict[str, Any]] = {row["pid"]: row for row in raw["waits"]}
        self._marked: dict[int, str] = dict(raw["marked_rows"])
        self._holders: dict[int, list[HolderFacts]] = {}
        self._totals: dict[int, int] = {}
        for waiter, pid, gid, modes, total in raw["holders"]:
            holder = HolderFacts(pid or gid or "", strongest_first(modes), queued=False)
            self._holders.setdefault(waiter, []).append(holder)
            self._totals[waiter] = total

    def of(self, pid: int) -> tuple[AwaitedLock | None, tuple[HolderFacts, ...], int]:
        """The lock, those in the way, and how many these are."""
        row = self._rows.get(pid)
        if row is None:
            return None, (), 0
        lock = awaited(row, self._marked.get(pid))
        if holders := self._holders.get(pid):
            return lock, tuple(holders), self._totals[pid]
        # Nobody has the lock in a mode that is in the way: then it is those in front who want it.
        # One may be there twice: the workers of a parallel query count as their leader.
        queue = dict.fromkeys(row["queue"])
        queued = tuple(HolderFacts(holder or "", (), queued=True) for holder in queue)
        return lock, queued, max(row["queue_count"], len(queued))


def _backend(row: list[Any], waits: _Waits, redacted: Callable[[str], str]) -> BackendFacts:
    known = dict(zip(_NAMES, row, strict=False))
    known["query"] = redacted(known["query"])
    lock, behind, count = waits.of(known["pid"])
    return BackendFacts(**known, waits_for=lock, behind=behind, behind_count=count)


def _what_is_hidden(backends: tuple[BackendFacts, ...], role: str) -> list[str]:
    hidden = sum(b.hidden for b in backends)
    if not hidden:
        return []
    return [
        f"{hidden} of {len(backends)} sessions belong to roles that {role} may not look into:"
        " their state, statement, age and address are missing, and they cannot be ended from"
        " here. Whom they block is shown all the same."
        f" To see them: GRANT pg_read_all_stats TO {role};"
    ]


def _what_is_between(pooler: bool, driver_pid: int | None, server_pid: int) -> list[str]:
    if not pooler:
        return []
    return [
        f"A pooler is in between: the driver was told process {driver_pid}, the server answers as"
        f" process {server_pid}. Sessions, locks and who blocks whom are the server's and right;"
        " which line of Python a session works for cannot be told. To see that, let the page or"
        " the command connect, and the pools too, to the server itself; or go by"
        " application_name."
    ]
