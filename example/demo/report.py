"""The table of the demo, and what it means in words that the numbers carry."""

import statistics
from collections.abc import Sequence

from example.demo.facts import Plan, Row

HEADINGS = ("requests/s", "p50 ms", "p99 ms", "peak conns", "connects", "errors")
# Below this share a difference is not worth a word even if every round agrees on it.
WORTH_SAYING = 0.03
# Above this share of a core the load generator would slow down what it measures.
BUSY_GENERATOR = 0.35


def table(rows: Sequence[Row]) -> str:
    """One line per variant."""
    title_width = max(len(row.title) for row in rows)
    head = " " * title_width + _columns(HEADINGS)
    lines = [row.title.ljust(title_width) + _columns(cells(row)) for row in rows]
    return "\n".join([head, "-" * len(head), *lines])


def _columns(texts: Sequence[str]) -> str:
    return "".join(
        f"  {text:>{len(heading)}}" for text, heading in zip(texts, HEADINGS, strict=True)
    )


def cells(row: Row) -> list[str]:
    """The numbers of one line, in the order of HEADINGS."""
    latencies = sorted(latency for turn in row.rounds for latency in turn.load.latencies_ms)
    return [
        f"{rate(row):.0f}",
        f"{percentile(latencies, 50):.1f}",
        f"{percentile(latencies, 99):.1f}",
        f"{peak(row)}",
        f"{sum(turn.connects for turn in row.rounds)}",
        f"{row.errors.total()}",
    ]


def rate(row: Row) -> float:
    """Requests per second over all rounds."""
    seconds = sum(turn.load.seconds for turn in row.rounds)
    return sum(len(turn.load.latencies_ms) for turn in row.rounds) / seconds


def peak(row: Row) -> int:
    """The most server connections seen at once."""
    return max(turn.peak_connections for turn in row.rounds)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The value that *percent* of the sorted values do not exceed; nan for none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def compare(row: Row, other: Row) -> float | None:
    """How many times as fast *row* is as *other*; None if this run cannot tell them apart."""
    pairs = zip(row.rounds, other.rounds, strict=True)
    ratios = [one.load.rate / two.load.rate for one, two in pairs if two.load.rate]
    if not ratios:
        return None
    middle = statistics.median(ratios)
    agreed = min(ratios) > 1 or max(ratios) < 1
    return middle if agreed and abs(middle - 1) >= WORTH_SAYING else None


def meaning(rows: Sequence[Row]) -> list[str]:
    """One sentence: the last row against each of the others."""
    *others, last = rows
    parts = [f"{_times(compare(last, other))} {other.title!r}" for other in others]
    return [f"Requests/s of {last.title!r}: {', '.join(parts)}."] if parts else []


def _times(ratio: float | None) -> str:
    return "within the noise of" if ratio is None else f"{ratio:.2f} x"


def notes(rows: Sequence[Row], plan: Plan) -> list[str]:
    """What a reader must know not to read too much into the table."""
    loads = [turn.load for row in rows for turn in row.rounds]
    busy = max(load.cpu_share for load in loads)
    lines = [
        f"Peak conns: 2 processes x 4 threads need 8 at most, with any of them. p99 is mostly the "
        f"page that waits {plan.carrier_ms} ms for its carrier, and the queue for 8 threads.",
    ]
    if busy > BUSY_GENERATOR:
        lines.append(f"The load generator took {busy:.0%} of a core: the differences are larger.")
    return lines


def problems(rows: Sequence[Row]) -> list[str]:
    """Each kind of error, with its number."""
    return [
        f"{row.title}: {count} x {what}" for row in rows for what, count in row.errors.most_common()
    ]
