"""What became of one contender in one fault."""

from dataclasses import dataclass
from typing import Any

WAITS_FOR_EVER = "LoopExit"  # gevent's word, when nobody is left who could wake the waiting one


@dataclass(frozen=True)
class Outcome:
    """One cell of the table, what of it is counted, and what is told below the table."""

    text: str
    leaks: int = 0
    foreign_rows: int = 0
    lost_slots: int = 0
    failed: int = 0
    hangs: int = 0
    note: str = ""


def seconds(value_s: float) -> str:
    """A time as short as its size allows: '1.9 ms', '53 ms', '4.02 s', '30.0 s'."""
    if value_s < 0.01:
        return f"{1e3 * value_s:.1f} ms"
    if value_s < 1:
        return f"{1e3 * value_s:.0f} ms"
    return f"{value_s:.2f} s" if value_s < 10 else f"{value_s:.1f} s"


def of_request(answer: dict[str, Any]) -> Outcome:
    """Of one request: how long it took, and by what error it ended."""
    took, kind = seconds(answer["seconds"]), answer["kind"]
    if kind is None:
        return Outcome(f"served after {took}")
    if kind == WAITS_FOR_EVER:
        return Outcome("hangs", hangs=1, note=answer["error"])
    timed_out = kind.endswith(("Timeout", "TimeoutError"))
    how = kind.removesuffix("Error") if timed_out else "fails"
    return Outcome(f"{how} after {took}", failed=1, note=answer["error"])
