"""What the demo's table says, and what it refuses to say."""

import json
from collections import Counter

import pytest

from example.demo import report, statements
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


def test_what_went_wrong_for_visitors_comes_through_from_the_load_process() -> None:
    load = Load(errors=Counter({"GET /: 500": 2}))
    assert Load.from_json(load.to_json()) == load


def queries(calls: int = 100, /, **means_ms: float) -> str:
    """What `manage.py pools queries --json` says of statements with these texts."""
    said = [facts(text, calls, mean / 1000) for text, mean in means_ms.items()]
    return json.dumps({"statements": said})


def figures(**means_ms: float) -> dict[str, statements.Figures]:
    return statements.read(queries(**means_ms))


def facts(text: str, calls: int, mean_s: float) -> dict[str, object]:
    return {
        "text": text,
        "calls": calls,
        "total_s": calls * mean_s,
        "p95_s": 2 * mean_s,
        "prepared_calls": 0 if text == "never" else calls - 10,
        "prepared_mean_s": 0.0 if text == "never" else mean_s / 2,
    }


PREPARED = json.dumps({"prepared": [{"state": state} for state in ("prepared", "hot", "prepared")]})


def test_a_statement_has_its_figures_of_both_sites_and_how_they_compare() -> None:
    found = statements.findings(figures(often=4.0), figures(often=6.0), PREPARED)
    numbers, text = statements.table(found).splitlines()[2:]
    assert " ".join(numbers.split()) == "100 4.00 ms 8.00 ms 90 x 3.00 ms 12.00 ms 0.75"
    assert text == "  often"


def test_a_statement_that_never_ran_prepared_is_compared_all_the_same() -> None:
    found = statements.findings(figures(never=4.0), figures(never=6.0), PREPARED)
    numbers = statements.table(found).splitlines()[2]
    assert " ".join(numbers.split()) == "100 4.00 ms 8.00 ms never 6.00 ms 12.00 ms 1.50"


def test_executions_before_the_first_look_count_only_in_percentiles() -> None:
    warm, end = queries(10, a=9.0, idle=1.0), queries(110, a=1.5, new=1.0)
    found = statements.between(warm, end)
    assert found["a"].calls == 100
    assert found["a"].total_s == pytest.approx(0.165 - 0.09)
    assert found["a"].prepared_calls == 100
    assert found["a"].prepared_s == pytest.approx(0.075)
    assert found["new"].calls == 110
    assert not statements.between(end, end)


def test_the_most_costly_statements_come_first_and_those_of_one_site_are_left_out() -> None:
    found = statements.findings(figures(b=1.0, a=2.0, x=9.0), figures(b=1.0, a=2.0), PREPARED)
    assert [statement.text for statement in found.statements] == ["a", "b"]


def test_the_table_of_statements_fits_100_columns() -> None:
    long = figures(**{"SELECT " + "x" * 200: 12345.0})
    text = statements.table(statements.findings(long, long, PREPARED))
    assert max(map(len, text.splitlines())) <= 100


def test_columns_and_joins_conditions_are_left_out_of_a_statement() -> None:
    joined = '"a" INNER JOIN "b" ON ("a"."b_id" = "b"."id")'
    text = f'SELECT "a"."x", "b"."y" FROM {joined} WHERE "a"."x" > %s'
    assert statements.shortened(text) == "SELECT ... FROM a INNER JOIN b WHERE a.x > %s"


def test_time_in_statements_is_told_per_request_and_the_states_are_counted() -> None:
    found = statements.findings(figures(often=4.0), figures(often=2.0), PREPARED)
    said = " ".join(statements.meaning([row("plain", 100), row("prepared", 100)], found))
    assert "4.0 ms in statements with plain, 2.0 ms with prepared" in said
    assert "1 hot, 2 prepared." in said


def test_statements_that_were_not_prepared_tell_what_is_chance() -> None:
    plain, prepared = figures(often=4.0, never=4.0), figures(often=6.0, never=5.0)
    rows = [row("plain", 100), row("prepared", 100)]
    said = " ".join(statements.meaning(rows, statements.findings(plain, prepared, PREPARED)))
    assert "What ran prepared took 0.75 x its time on the left" in said
    assert "unprepared at both sites took 1.25 x" in said


def test_preparing_that_changes_no_requests_is_said_to_change_none() -> None:
    found = statements.findings(figures(often=4.0), figures(often=2.0), PREPARED)
    said = statements.meaning([row("plain", *[100] * 6), row("prepared", *[100] * 6)], found)
    assert 'Requests/s of prepared: no difference (the rounds disagree) from "plain".' in said
