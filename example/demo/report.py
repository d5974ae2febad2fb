"""The table of the demo, and what it means in words that the numbers carry."""

import statistics
from collections.abc import Callable, Sequence

from example.demo.facts import Plan, Round, Row

HEADINGS = ("requests/s", "p50 ms", "p99 ms", "cpu ms/req", "peak conns", "connects", "errors")
# Below this share a difference is not worth a word even if every round agrees on it.
WORTH_SAYING = 0.03
# With fewer, rounds agree by chance too often: of 6, in one comparison of 32.
ENOUGH_ROUNDS = 6
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
        f"{cpu_ms(row):.2f}",
        f"{peak(row)}",
        f"{sum(turn.connects for turn in row.rounds)}",
        f"{row.errors.total()}",
    ]


def rate(row: Row) -> float:
    """Requests per second over all rounds."""
    seconds = sum(turn.load.seconds for turn in row.rounds)
    return sum(len(turn.load.latencies_ms) for turn in row.rounds) / seconds


def cpu_ms(row: Row) -> float:
    """Processor time of the web and database servers per request."""
    answers = sum(turn.load.answers for turn in row.rounds)
    return 1000 * sum(turn.cpu_s for turn in row.rounds) / answers if answers else float("nan")


def peak(row: Row) -> int:
    """The most server connections seen at once."""
    return max(turn.peak_connections for turn in row.rounds)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The value that *percent* of the sorted values do not exceed; nan for none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def compare(row: Row, other: Row, value: Callable[[Round], float]) -> float | None:
    """How many times *other*'s value *row* has; None if this run cannot tell them apart."""
    pairs = zip(row.rounds, other.rounds, strict=True)
    ratios = [value(one) / value(two) for one, two in pairs if value(two)]
    if len(ratios) < ENOUGH_ROUNDS:
        return None
    middle = statistics.median(ratios)
    agreed = min(ratios) > 1 or max(ratios) < 1
    return middle if agreed and abs(middle - 1) >= WORTH_SAYING else None


def meaning(rows: Sequence[Row]) -> list[str]:
    """What the numbers say of the last row beside each of the others; nothing for one row."""
    *others, last = rows
    if not others:
        return []
    if len(last.rounds) < ENOUGH_ROUNDS:
        return [f"Fewer than {ENOUGH_ROUNDS} rounds cannot tell a difference from chance."]
    return [
        f"{name} of {last.title}: {_against(others, last, value)}."
        for name, value in (
            ("Requests/s", lambda turn: turn.load.rate),
            ("Processor time per request", lambda turn: turn.cpu_ms),
        )
    ]


def _against(others: Sequence[Row], last: Row, value: Callable[[Round], float]) -> str:
    ratios = {other.title: compare(last, other, value) for other in others}
    parts = [f'{ratio:.2f} x "{title}"' for title, ratio in ratios.items() if ratio]
    same = [f'"{title}"' for title, ratio in ratios.items() if not ratio]
    if same:
        parts.append(f"no difference (the rounds disagree) from {' and '.join(same)}")
    return "; ".join(parts)


def notes(rows: Sequence[Row], plan: Plan) -> list[str]:
    """What a reader must know not to read too much into the table."""
    lines = [
        f"Latency includes the queue, as {plan.clients} clients ask 8 threads; some pages wait"
        f" {plan.carrier_ms} ms for their carrier."
    ]
    if len({peak(row) for row in rows}) == 1 < len(rows):
        lines.append(
            "Peak connections do not differ: a thread at work needs one, whoever lends it."
        )
    busy = max(turn.load.cpu_share for row in rows for turn in row.rounds)
    if busy > BUSY_GENERATOR:
        lines.append(f"The load generator took {busy:.0%} of a core: the differences are larger.")
    return lines


def problems(rows: Sequence[Row]) -> list[str]:
    """Each kind of error, with its number."""
    return [
        f"{row.title}: {count} x {what}" for row in rows for what, count in row.errors.most_common()
    ]
