"""What the server's locks are called, for people who have not written them."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django_psycopg_pooled.facts.server import AwaitedLock

# As in the manual's table "Conflicting Lock Modes", the weakest first.
MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
RELATIONS = {
    "i": "index", "I": "index", "S": "sequence", "v": "view", "m": "materialized view",
}  # fmt: skip


@cache
def mode_words(mode: str) -> str:
    """pg_locks' name of a mode as SQL has it: AccessExclusiveLock is ACCESS EXCLUSIVE."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()


def strongest_first(modes: Iterable[str]) -> tuple[str, ...]:
    """*modes* in words; those that are unknown come first."""
    words = map(mode_words, modes)
    return tuple(sorted(words, key=lambda word: MODES.index(word) if word in MODES else 99))[::-1]


def awaited(row: Mapping[str, Any], row_of: str | None) -> AwaitedLock:
    """The lock of one row of `waits`; *row_of*: the table of which the session has marked a row."""
    kind, name = _kind_and_name(row, row_of)
    return AwaitedLock(kind, name, mode_words(row["mode"]), row["wait_s"])


def _kind_and_name(row: Mapping[str, Any], row_of: str | None) -> tuple[str, str]:
    match row["locktype"]:
        case "relation":
            kind = RELATIONS.get(row["relkind"], "table")
            return kind, f"{kind} {row['relation']}"
        case "tuple":
            return "row", f"row of {row['relation']}"
        case "transactionid" if row_of:
            # Who waits for a row waits for the transaction that changed it, and marks the row.
            return "row", f"row of {row_of}"
        case "transactionid":  # a new row with the same key has no mark
            return "transaction", f"transaction {row['transaction']}"
        case "virtualxid":
            return "transaction", f"virtual transaction {row['virtual']}"
        case "advisory":
            return "advisory", f"advisory lock {_advisory_key(row)}"
        case other if row["relation"]:
            return other, f"{other} of {row['relation']}"
        case other:
            return other, other


def _advisory_key(row: Mapping[str, Any]) -> str:
    """The key as the functions take it: one bigint, or two integers."""
    high, low = row["classid"], row["objid"]
    if row["objsubid"] == 1:
        return str(_signed(high << 32 | low, 64))
    return f"{_signed(high, 32)}, {_signed(low, 32)}"


def _signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> (bits - 1) else number
