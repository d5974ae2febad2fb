"""Percentiles of several processes are those of all their statements, or told to be a bound."""

import json
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.management.statements import together
from django_psycopg_pooled.stats.histogram import Histogram
from django_psycopg_pooled.tables.queries import query_table

durations = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50)


def told(*seconds: float, tells: bool = True, text: str = "SELECT %s") -> dict[str, Any]:
    """What a process says of a statement that has taken so long; `tells`: with its histogram."""
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    least, most = min(seconds), max(seconds)
    percentiles = {f"p{n}_s": min(max(histogram.percentile(n), least), most) for n in (50, 95, 99)}
    facts = {field.name: 0 for field in fields(QueryFacts)}
    more = {"errors_by_sqlstate": {}, "callers": [], "works": [], "calls": len(seconds)}
    own = {"durations": histogram.as_json()} if tells else {}
    whole = {
        **facts, **more, **percentiles, **own, "text": text, "min_s": least, "max_s": most,
    }  # fmt: skip
    answer: dict[str, Any] = json.loads(json.dumps(whole))
    return answer


def percentiles(facts: QueryFacts | dict[str, Any]) -> list[float]:
    known = facts if isinstance(facts, dict) else asdict(facts)
    return [known["p50_s"], known["p95_s"], known["p99_s"]]


@given(st.lists(durations, min_size=1, max_size=4))
def test_they_are_those_of_one_process_that_did_all_of_it(parts: list[list[float]]) -> None:
    [facts], at_most = together([told(*part) for part in parts], "total_time", 1)
    assert percentiles(facts) == percentiles(told(*(each for part in parts for each in part)))
    assert not at_most


@given(durations, durations, durations)
def test_with_a_process_of_an_older_version_they_are_not_above_what_is_told(
    a: list[float], b: list[float], old: list[float]
) -> None:
    [facts], at_most = together([told(*a), told(*old, tells=False), told(*b)], "calls", 1)
    assert at_most == {"SELECT %s"}
    true = percentiles(told(*a, *b, *old))
    # Each within 4.4 %, as all percentiles are.
    assert all(bound >= each / 1.09 for bound, each in zip(percentiles(facts), true, strict=True))


def test_the_slowest_of_a_few_does_not_stand_for_all() -> None:
    """A process that has run it once, slowly, made a p95 of 3 s of that."""
    [facts], _ = together([told(*[0.001] * 999), told(3.0)], "calls", 1)
    assert facts.p95_s == pytest.approx(0.001, rel=0.05)


def test_what_one_old_process_has_told_alone_is_no_bound() -> None:
    _, at_most = together([told(1.0, tells=False), told(1.0, text="SELECT 2")], "calls", 9)
    assert not at_most


def test_they_set_statements_in_order() -> None:
    """By the highest part the first would be first."""
    parts = [told(*[0.001] * 999, text="a"), told(3.0, text="a"), told(0.1, text="b")]
    found, _ = together(parts, "p95", 2)
    assert [facts.text for facts in found] == ["b", "a"]


def test_a_bound_is_marked_in_the_table_and_columns_stay_apart() -> None:
    parts = [told(0.31, tells=False, text="a"), told(0.3, text="a"), told(0.2, text="b")]
    found, at_most = together(parts, "p95", 2)
    header, first, _, second, *_ = query_table("shop", "p95", 9.0, found, at_most).splitlines()[2:]
    assert "  <=310.0 ms" in first
    assert "<=" not in second
    assert len(header) == len(first) == len(second)
