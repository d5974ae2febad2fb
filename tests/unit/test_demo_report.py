"""What the demo's table says, and what it refuses to say."""

from collections import Counter

import pytest

from example.demo import report
from example.demo.facts import Load, Round, Row


def row(title: str, *rates: int, errors: int = 0) -> Row:
    turns = (Round(Load(1.0, [10.0] * rate, rate), 8, connects=2, cpu_s=0.1) for rate in rates)
    return Row(title, tuple(turns), +Counter({"an error": errors}))


def rate(turn: Round) -> float:
    return turn.load.rate


def test_the_table_has_a_line_of_at_most_100_columns_for_each_variant() -> None:
    text = report.table([row("x" * 28, 100_000), row("y", 50, errors=3)])
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[3].split() == ["y", "50", "10.0", "10.0", "2.00", "8", "2", "3"]


def test_a_difference_counts_only_when_every_round_shows_it() -> None:
    slow = row("b", 100, 100, 100, 100, 100, 100)
    assert report.compare(row("a", 200, 210, 200, 210, 200, 210), slow, rate) == pytest.approx(2.05)
    assert report.compare(row("a", 200, 210, 200, 210, 200, 90), slow, rate) is None


def test_a_small_difference_is_none_even_if_every_round_shows_it() -> None:
    slow = row("b", 100, 100, 100, 100, 100, 100)
    assert report.compare(row("a", 101, 102, 101, 102, 101, 102), slow, rate) is None


def test_a_few_rounds_tell_no_difference() -> None:
    assert report.compare(row("a", 200, 200), row("b", 100, 100), rate) is None
    [sentence] = report.meaning([row("b", 100), row("a", 200)])
    assert sentence.startswith("Fewer than 6 rounds")


def test_rounds_without_an_answer_are_not_compared() -> None:
    assert report.compare(row("a", *[100] * 6), row("b", *[0] * 6), rate) is None


def test_what_the_numbers_mean_names_the_other_variants() -> None:
    rows = [row("slow", *[50] * 6), row("equal", *[100] * 6), row("last", *[100] * 6)]
    assert report.meaning(rows) == [
        'Requests/s of last: 2.00 x "slow"; no difference (the rounds disagree) from "equal".',
        'Processor time per request of last: 0.50 x "slow";'
        ' no difference (the rounds disagree) from "equal".',
    ]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert report.percentile(values, 50) == 51.0
    assert report.percentile(values, 99) == 100.0
    assert report.percentile([7.0], 99) == 7.0


def test_each_kind_of_error_is_named_with_its_number() -> None:
    assert report.problems([row("a", 1, errors=3)]) == ["a: 3 x an error"]
