"""What preparing does to the shop's statements, as a table, and to its requests."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from example.demo import report
from example.demo.facts import Row

WIDTH = 96
SHOWN = 8
HEADINGS = ("calls", "mean", "p95", "prepared", "mean", "p95", "mean x")
WIDTHS = (7, 10, 10, 11, 10, 10, 9)
# What all of Django's statements have, and nobody reads.
COLUMNS = re.compile(r"\A(SELECT (?:DISTINCT )?).*?( FROM )")
CONDITION = re.compile(r" ON \([^()]*\)")


@dataclass(frozen=True)
class Statement:
    """One text, of a site that prepares nothing and of one that does. Durations in ms."""

    text: str
    calls: int
    mean: float
    p95: float
    prepared_calls: int  # the rest of the second site's ran plain
    second_mean: float  # of these alone, but of all if there are none
    second_p95: float  # of all


@dataclass(frozen=True)
class Findings:
    """What two sites tell of their statements after the same load."""

    statements: tuple[Statement, ...]  # the most costly first
    states: Counter[str]  # how many texts are prepared, denied ...
    plain_s: float  # all statements together
    prepared_s: float


@dataclass(frozen=True)
class Figures:
    """What one site's processes together tell of a text."""

    calls: int
    total_s: float
    prepared_calls: int
    prepared_s: float
    p95_s: float

    def since(self, earlier: "Figures") -> "Figures":
        """Without what was there *earlier*; a percentile cannot be told apart so."""
        return Figures(
            self.calls - earlier.calls,
            self.total_s - earlier.total_s,
            self.prepared_calls - earlier.prepared_calls,
            self.prepared_s - earlier.prepared_s,
            self.p95_s,
        )


NOTHING = Figures(0, 0.0, 0, 0.0, 0.0)


def read(said: str) -> dict[str, Figures]:
    """What `manage.py pools queries --json` said, by text."""
    return {facts["text"]: _figures(facts) for facts in json.loads(said)["statements"]}


def _figures(facts: Mapping[str, Any]) -> Figures:
    prepared_s = facts["prepared_calls"] * facts["prepared_mean_s"]
    names = ("calls", "total_s", "prepared_calls")
    calls, total_s, prepared_calls = (facts[name] for name in names)
    return Figures(calls, total_s, prepared_calls, prepared_s, facts["p95_s"])


def between(warm: str, end: str) -> dict[str, Figures]:
    """The figures of what was executed between two looks at a site: none is a session's first."""
    earlier = read(warm)
    found = {text: now.since(earlier.get(text, NOTHING)) for text, now in read(end).items()}
    return {text: figures for text, figures in found.items() if figures.calls > 0}


def findings(
    plain: Mapping[str, Figures], prepared: Mapping[str, Figures], states: str
) -> Findings:
    """From between() of both, and what `manage.py pools prepared --json` said of one."""
    both = [_statement(text, plain[text], prepared[text]) for text in plain if text in prepared]
    return Findings(
        tuple(sorted(both, key=lambda found: -found.calls * found.mean)),
        Counter(facts["state"] for facts in json.loads(states)["prepared"]),
        sum(figures.total_s for figures in plain.values()),
        sum(figures.total_s for figures in prepared.values()),
    )


def _statement(text: str, plain: Figures, prepared: Figures) -> Statement:
    times, seconds = prepared.prepared_calls, prepared.prepared_s
    if not times:
        times, seconds = prepared.calls, prepared.total_s
    return Statement(
        text,
        plain.calls,
        1000 * plain.total_s / plain.calls,
        1000 * plain.p95_s,
        prepared.prepared_calls,
        1000 * seconds / times,
        1000 * prepared.p95_s,
    )


def table(found: Findings) -> str:
    """The statements that cost most, a line of figures each and a line of text."""
    lines = [_row(HEADINGS), "-" * WIDTH]
    for statement in found.statements[:SHOWN]:
        lines += [_row(_cells(statement)), f"  {shortened(statement.text)}"]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def _cells(statement: Statement) -> list[str]:
    return [
        f"{statement.calls}",
        f"{statement.mean:.2f} ms",
        f"{statement.p95:.2f} ms",
        f"{statement.prepared_calls} x" if statement.prepared_calls else "never",
        f"{statement.second_mean:.2f} ms",
        f"{statement.second_p95:.2f} ms",
        f"{ratio([statement]):.2f}",
    ]


def ratio(statements: Sequence[Statement]) -> float:
    """How much longer they take at the second site, each as often as at the first; nan for none."""
    first = sum(found.calls * found.mean for found in statements)
    second = sum(found.calls * found.second_mean for found in statements)
    return second / first if first else float("nan")


def shortened(text: str) -> str:
    """A statement's tables and conditions, in one line."""
    text = CONDITION.sub("", COLUMNS.sub(r"\1...\2", text)).replace('"', "")
    return text if len(text) <= WIDTH - 2 else f"{text[: WIDTH - 5]}..."


def meaning(rows: Sequence[Row], found: Findings) -> list[str]:
    """What the figures say of statements, and of whole requests; *rows*: plain, then prepared."""
    plain, prepared = rows
    return [
        f"On the left {plain.title}, on the right {prepared.title}: how often each ran prepared,"
        " the mean of these executions, and the p95 of all. mean x: right beside left.",
        *_compared(found.statements),
        f"Texts there: {_states(found)}. What has no parameter is not prepared.",
        *report.meaning(rows),
        f"A request spends {_per_request(found.plain_s, plain)} in statements with {plain.title},"
        f" {_per_request(found.prepared_s, prepared)} with {prepared.title}, each with what a"
        " thread waits for other threads of its process; no preparing changes the rest of a page.",
        "What statements with many joins gain: benchmarks/RESULTS.md.",
    ]


def _compared(found: Sequence[Statement]) -> list[str]:
    """What was prepared, beside what was not: whatever slowed one site down slowed both down."""
    prepared = [statement for statement in found if statement.prepared_calls]
    never = [statement for statement in found if not statement.prepared_calls]
    if not prepared or not never:
        return []
    return [
        f"What ran prepared took {ratio(prepared):.2f} x its time on the left; what ran unprepared"
        f" at both sites took {ratio(never):.2f} x, and that is chance: only what is between these"
        " two can be preparing's."
    ]


def _states(found: Findings) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(found.states.items())) or "none"


def _per_request(seconds: float, row: Row) -> str:
    answers = sum(turn.load.answers for turn in row.rounds)
    return f"{1000 * seconds / answers:.1f} ms" if answers else "nothing"
