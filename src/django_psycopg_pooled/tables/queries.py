"""Facts about statements as text for people and programs. Reads facts only."""

import dataclasses
import json
import re
import textwrap
from collections.abc import Collection, Sequence

from django_psycopg_pooled.facts.queries import CallerShare, QueryFacts
from django_psycopg_pooled.tables.pool import duration

WIDTH = 80
HEADER = ("calls", "total", "mean", "p95", "rows", "errors")
_WIDTHS = (12, 10, 10, 10, 12, 8)
_WIDTHS_AT_MOST = (12, 10, 10, 12, 12, 8)
AT_MOST = "<="
_LINES = 2  # of a statement's text
_NAMED = 2  # callers, and works
_NARROWEST = 8  # columns of a statement's text
# Django names every column, which is more than anybody reads.
_COLUMNS = re.compile(r"\A(SELECT (?:DISTINCT )?).{24,}?( FROM )", re.IGNORECASE)


def query_table(
    pool: str,
    by: str,
    period_s: float,
    queries: Sequence[QueryFacts],
    at_most: Collection[str] = (),
    width: int | None = WIDTH,
) -> str:
    """Each statement's figures, text, callers and suspects.

    At most *width* columns but for figures and long names, and two lines of a text; None: the whole
    text, in lines of 80.

    Pool 'default': statements by total_time, of the last 4 min

       calls     total      mean       p95        rows  errors
       1,204    12.3 s   10.2 ms   31.0 ms      24,080       0
    SELECT ... FROM "shop_order" WHERE "shop_order"."id" = %s
    by shop/views.py:88 in checkout (92 %), shop/mail.py:7 in send (8 %)
    in GET /orders/<int:pk>/ (100 %)
    N+1: executed too often in 12 requests or tasks; 240 times in one

    at_most   texts of those whose p95 is not known better than that: it is told as "<=31.0 ms"
    """
    lines = [f"Pool {pool!r}: statements by {by}, of the last {duration(period_s)}"]
    widths = _WIDTHS_AT_MOST if at_most else _WIDTHS
    if queries:
        lines += ["", _row(HEADER, widths)]
    for facts in queries:
        sign = AT_MOST if facts.text in at_most else ""
        lines += [_row(_cells(facts, sign), widths), *_about(facts, width)]
    return "\n".join(lines)


def query_json(pool: str, queries: Sequence[QueryFacts]) -> str:
    """The same as JSON: {"pool": ..., "statements": [{"text": ..., "calls": ...}]}."""
    return json.dumps({"pool": pool, "statements": [dataclasses.asdict(q) for q in queries]})


def short_duration(seconds: float) -> str:
    """A duration for people, from microseconds on: '812 us', '10.2 ms', '3.1 s', '4 min'."""
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.999_95 else duration(seconds)


def _cells(facts: QueryFacts, sign: str) -> tuple[str, ...]:
    return (
        f"{facts.calls:,}",
        short_duration(facts.total_s),
        short_duration(facts.mean_s),
        sign + short_duration(facts.p95_s),
        f"{facts.rows:,}",
        f"{facts.errors:,}",
    )


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _about(facts: QueryFacts, width: int | None) -> list[str]:
    text = _COLUMNS.sub(r"\1...\2", _printable(facts.text))
    said = textwrap.wrap(
        text,
        max((width or WIDTH) - 4, _NARROWEST),
        max_lines=None if width is None else _LINES,
        placeholder=" ...",
    )
    said += _shares("by", facts.callers) + _shares("in", facts.works)
    if facts.n_plus_one:
        said.append(
            f"N+1: executed too often in {facts.n_plus_one:,}"
            f" request{'' if facts.n_plus_one == 1 else 's'} or task"
            f"{'' if facts.n_plus_one == 1 else 's'}; {facts.n_plus_one_most:,} times in one"
        )
    if facts.errors:
        codes = facts.errors_by_sqlstate.items()
        said.append("errors: " + ", ".join(f"{times:,} x {code}" for code, times in codes))
    return [f"  {line}" for line in said]


def _shares(word: str, shares: Sequence[CallerShare]) -> list[str]:
    return [f"{word} {_printable(s.text)} ({s.share * 100:.0f} %)" for s in shares[:_NAMED]]


def _printable(text: str) -> str:
    """Raw SQL may speak to the terminal, and a file may have any name."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
