"""What is counted of one statement."""

import dataclasses
import pickle
from types import CodeType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.statements.book import Record
from django_psycopg_pooled.statements.figures import CALLERS, OTHER_ERRORS, Family, Top
from django_psycopg_pooled.statements.journal import Execution
from django_psycopg_pooled.tracking.labels import Work

LIMIT = 3  # how often one unit may run it with different parameters


def _code(name: str) -> CodeType:
    return compile("1", name, "exec")


VIEW = (_code("views.py"), 0)
RECORD = Record("SELECT 1")
DEFAULTS = Execution(RECORD, object(), None, VIEW, 0.001, 1, 0.0, None, None, False)


def _family(*executions: dict[str, Any]) -> Family:
    family = Family("SELECT ?")
    for changes in executions:
        family.add(DEFAULTS._replace(**changes), 1000.0, LIMIT)
    return family


def _facts(family: Family) -> QueryFacts:
    return family.facts(lambda line: f"{line[0].co_filename}:{line[1]}")


def test_it_counts_calls_rows_time_and_waiting() -> None:
    facts = _facts(_family({"elapsed": 0.002, "rows": 5}, {"rows": -1, "waited": 0.5}, {"rows": 0}))
    assert (facts.text, facts.calls, facts.rows) == ("SELECT ?", 3, 5)
    assert facts.total_s == pytest.approx(0.004)
    assert facts.mean_s == pytest.approx(0.004 / 3)
    assert (facts.min_s, facts.max_s, facts.waited_s) == (0.001, 0.002, 0.5)


def test_percentiles_are_within_what_was_seen() -> None:
    facts = _facts(_family({"elapsed": 0.0015}))
    assert facts.p50_s == facts.p99_s == facts.min_s == facts.max_s == 0.0015


def test_prepared_and_plain_executions_have_means_of_their_own() -> None:
    facts = _facts(_family({"elapsed": 0.3}, {"elapsed": 0.1, "prepared": True}, {"elapsed": 0.1}))
    assert (facts.plain_calls, facts.prepared_calls) == (2, 1)
    assert (facts.plain_mean_s, facts.prepared_mean_s) == pytest.approx((0.2, 0.1))


def test_errors_are_told_apart_by_sqlstate_the_last_kinds_together() -> None:
    facts = _facts(_family({"sqlstate": "23505"}, {"sqlstate": "23505"}, {}))
    assert (facts.calls, facts.errors, facts.errors_by_sqlstate) == (3, 2, {"23505": 2})
    many = _facts(_family(*({"sqlstate": f"{n:05}"} for n in range(100))))
    assert many.errors == sum(many.errors_by_sqlstate.values()) == 100
    assert len(many.errors_by_sqlstate) == 17
    assert many.errors_by_sqlstate[OTHER_ERRORS] == 84


def test_callers_are_places_in_code_and_works_are_texts() -> None:
    first, second = _code("a.py"), _code("b.py")
    work = Work("GET", unfinished=True)
    executions = [{"place": (first, 1), "work": work}] * 3 + [{"place": (second, 7)}]
    work.complete("GET /a")  # before it is counted
    facts = _facts(_family(*executions))
    assert [(c.text, c.calls, c.share) for c in facts.callers] == [("a.py:1", 3, 0.75),
                                                                   ("b.py:7", 1, 0.25)]  # fmt: skip
    assert [(c.text, c.calls, c.share) for c in facts.works] == [("GET /a", 3, 0.75)]


def test_several_places_in_one_line_are_one_caller() -> None:
    family = _family({"place": (VIEW[0], 0)}, {"place": (VIEW[0], 2)})
    [caller] = family.facts(lambda line: "views.py:8").callers
    assert (caller.calls, caller.share) == (2, 1.0)


def test_code_of_the_same_number_as_code_that_is_gone_is_not_taken_for_it() -> None:
    family = Family("SELECT ?")
    for n in range(CALLERS):  # a code that nobody kept would leave its number to the next
        family.add(DEFAULTS._replace(place=(_code(f"{n}.py"), 0)), 1000.0, LIMIT)
    assert {c.text for c in _facts(family).callers} == {f"{n}.py:0" for n in range(CALLERS)}


@given(st.lists(st.integers(0, 30), max_size=300))
def test_the_top_never_says_too_little_and_has_all_who_make_more_than_an_eighth(
    keys: list[int],
) -> None:
    top: Top[int] = Top()
    for key in keys:
        top.add(key, key)
    assert len(top.counts) <= CALLERS
    assert sum(counted.times for counted in top.counts.values()) == len(keys)
    for key in set(keys):
        if key in top.counts:
            assert top.counts[key].times >= keys.count(key)
        else:
            assert keys.count(key) <= len(keys) / CALLERS


# ---- N+1


def _in_units(*units: tuple[object, list[int]]) -> tuple[int, int]:
    facts = _facts(_family(*({"unit": unit, "mark": m} for unit, marks in units for m in marks)))
    return facts.n_plus_one, facts.n_plus_one_most


def test_more_different_parameters_in_one_unit_than_the_limit_are_suspect() -> None:
    assert _in_units((object(), [1, 2, 3])) == (0, 0)
    assert _in_units((object(), [1, 2, 3, 4])) == (1, 4)
    assert _in_units((object(), list(range(100)))) == (1, 100)


def test_the_same_parameters_however_often_are_not() -> None:
    assert _in_units((object(), [1] * 100)) == (0, 0)
    assert _in_units((object(), [1, 2] * 100)) == (0, 0)


def test_each_unit_counts_for_itself_and_the_worst_one_is_told() -> None:
    few = [(object(), [1, 2]) for _ in range(10)]
    assert _in_units(*few, (object(), list(range(5))), (object(), list(range(9)))) == (2, 9)


def test_units_that_run_side_by_side_are_told_apart() -> None:
    units = [object() for _ in range(20)]
    turns = [{"unit": unit, "mark": mark} for mark in range(5) for unit in units]
    assert _facts(_family(*turns)).n_plus_one == 20


def test_parameters_that_cannot_be_told_apart_make_nobody_suspect() -> None:
    assert _facts(_family(*[{"unit": RECORD, "mark": None}] * 100)).n_plus_one == 0


def test_units_that_are_over_are_forgotten() -> None:
    family = _family(*({"unit": object(), "mark": n} for n in range(10_000)))
    assert len(family._units) <= 32


# ---- adding up


def test_merged_and_copied_figures_are_those_of_all_together() -> None:
    executions: list[dict[str, Any]] = [
        {"elapsed": 0.125, "sqlstate": "23505", "waited": 0.1},
        {"elapsed": 3.0, "rows": 7, "prepared": True, "work": Work("GET /a")},
        {"elapsed": 0.5, "place": (_code("b.py"), 0)},
        *({"unit": RECORD, "mark": n, "elapsed": 0.25} for n in range(5)),
    ]
    merged = _family(*executions[:2])
    merged.merge(_family(*executions[2:]))
    merged.merge(_family())
    assert _facts(merged) == _facts(_family(*executions)) == _facts(merged.copy())


def test_first_and_last_seen_are_wall_time() -> None:
    early, late = Family("a"), Family("a")
    early.add(DEFAULTS, 1000.0, LIMIT)
    late.add(DEFAULTS, 2000.0, LIMIT)
    late.merge(early)
    assert (_facts(late).first_seen, _facts(late).last_seen) == (1000.0, 2000.0)


def test_a_copy_does_not_change_any_more() -> None:
    family = _family({})
    copy = family.copy()
    before = _facts(copy)
    family.add(DEFAULTS._replace(sqlstate="23505", elapsed=9.0), 5000.0, LIMIT)
    assert _facts(copy) == before


def test_facts_of_nothing_are_zeros() -> None:
    facts = dataclasses.asdict(_facts(Family("a")))
    assert facts.pop("text") == "a"
    assert not any(facts.values())


def test_facts_can_be_sent_to_another_process() -> None:
    facts = _facts(_family({"work": Work("GET /a"), "sqlstate": "23505"}))
    assert pickle.loads(pickle.dumps(facts)) == facts
