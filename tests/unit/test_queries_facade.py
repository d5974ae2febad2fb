"""`pool.queries` and the journal that it reads."""

import gc
import math
import weakref

import pytest

from django_psycopg_pooled.integration.queries import Queries
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.statements.journal import Journal
from django_psycopg_pooled.testing.manual import ManualClock


def test_what_nobody_needs_goes_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        journal = Journal(ManualClock())
        queries = Queries("default", journal, PoolOptions(), ManualClock())
        gone = weakref.ref(queries), weakref.ref(journal)
        del queries, journal
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_a_journal_outlives_its_reader() -> None:
    journal = Journal(ManualClock())
    Queries("default", journal, PoolOptions(), ManualClock())
    journal.fold()
    journal.slow(None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", ["x", None, -1, 1.5, True])
def test_a_number_of_statements_is_a_whole_number(n: int) -> None:
    for journal in (Journal(ManualClock()), None):
        queries = Queries("default", journal, PoolOptions(), ManualClock())
        for ask in (queries.top, queries.as_table, queries.as_json):
            with pytest.raises(ValueError, match=f"n is {n!r}; it must be a whole number from 0"):
                ask(n)


@pytest.mark.parametrize("seconds", ["x", None, -1, math.nan, True])
def test_a_trace_lasts_for_a_number_of_seconds_and_a_wrong_one_changes_nothing(
    seconds: float,
) -> None:
    journal = Journal(ManualClock())
    queries = Queries("default", journal, PoolOptions(), ManualClock())
    queries.trace(60, threshold=2)
    words = f"is {seconds!r}; it must be a number of seconds from 0"
    with pytest.raises(ValueError, match=f"seconds {words}"):
        queries.trace(seconds)
    with pytest.raises(ValueError, match=f"threshold {words}"):
        queries.trace(0, seconds)
    assert journal.slow_after == 2
