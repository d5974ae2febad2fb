"""Statements are counted exactly, by whoever is there, in a space that has bounds."""

import gc
import random
import threading
import tracemalloc
from types import CodeType
from typing import Any

import pytest

from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.statements.book import Book, Record
from django_psycopg_pooled.statements.journal import FOLD_AT, OTHER, Execution, Journal
from django_psycopg_pooled.testing import ManualClock
from django_psycopg_pooled.tracking.labels import Work

PLACE: tuple[CodeType, int] = (compile("1", "views.py", "exec"), 0)


@pytest.fixture
def journal() -> Journal:
    return Journal(ManualClock())


def _execution(record: Record, mark: int = 0, unit: object = PLACE) -> tuple[Any, ...]:
    return record, unit, None, PLACE, 0.001, 1, 0.0, mark, None, False


def _run(journal: Journal, *records: Record) -> None:
    """Write executions down as cursors do."""
    for record in records:
        journal.trail.append(_execution(record))
        if len(journal.trail) >= FOLD_AT:
            journal.fold()


def _calls(journal: Journal) -> dict[str, int]:
    return {family.text: family.calls for family in journal.families()}


def test_texts_of_one_fingerprint_are_one_family(journal: Journal) -> None:
    _run(journal, Record("SELECT 1"), Record("SELECT  2 -- why"), Record("SELECT a"))
    assert _calls(journal) == {"SELECT ?": 2, "SELECT a": 1}


def test_whoever_reads_sees_what_has_just_run(journal: Journal) -> None:
    record = Record("SELECT a")
    for n in range(1, 4):
        _run(journal, record)
        assert _calls(journal) == {"SELECT a": n}


def test_what_piles_up_is_counted_without_a_reader(journal: Journal) -> None:
    record = Record("SELECT a")
    _run(journal, *[record] * (10 * FOLD_AT))
    assert len(journal.trail) < FOLD_AT


def test_after_a_reset_the_same_records_are_counted_again(journal: Journal) -> None:
    record = Record("SELECT a")
    _run(journal, record, record)
    journal.reset()
    assert _calls(journal) == {}
    _run(journal, record)
    assert _calls(journal) == {"SELECT a": 1}


def test_a_child_of_fork_counts_its_own_statements_only(journal: Journal) -> None:
    record = Record("SELECT a")
    _run(journal, record, record)
    _calls(journal)
    _run(journal, record)
    journal.restart()
    _run(journal, record)
    assert _calls(journal) == {"SELECT a": 1}


def test_who_folds_is_told_behind_it_and_nobody_waits_for_it(journal: Journal) -> None:
    told: list[bool] = []

    def look() -> None:
        told.append(journal._lock.acquire(blocking=False))
        journal._lock.release()

    journal.after_fold = look
    journal.fold()
    assert told == [True]
    with journal._lock:
        journal.fold()
    assert told == [True]


def test_the_least_used_make_room_and_what_they_had_is_not_lost() -> None:
    journal = Journal(ManualClock(), capacity=20)
    often = [Record(f"SELECT often_{n}_") for n in range(10)]
    total = 0
    for n in range(500):
        _run(journal, Record(f"SELECT once_{n}_"), *often)
        total += 1 + len(often)
    calls = _calls(journal)
    assert len(calls) <= 21
    assert all(calls[record.sql] == 500 for record in often)
    assert sum(calls.values()) == total
    assert calls[OTHER] > 400


def test_a_family_that_comes_back_is_counted_where_readers_look() -> None:
    journal = Journal(ManualClock(), capacity=4)
    early = Record("SELECT early")
    _run(journal, early)
    for n in range(50):
        _run(journal, *[Record(f"SELECT later_{n}_")] * 2)
        _calls(journal)
    _run(journal, early, early, early)
    assert _calls(journal)["SELECT early"] == 3


def test_eight_threads_and_a_reader_lose_nothing_and_count_nothing_twice() -> None:
    journals = [Journal(ManualClock(), capacity=30) for _ in range(2)]
    books = [Book(capacity=20) for _ in range(2)]  # so that records come and go
    done = threading.Event()

    def work(number: int) -> None:
        rng = random.Random(number)
        for n in range(2000):
            record = books[n % 2].look_up(f"SELECT t{rng.randrange(40)}_")
            _run(journals[n % 2], record)

    def read() -> None:
        while not done.is_set():
            for journal in journals:
                journal.families()

    reader = threading.Thread(target=read)
    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in [reader, *workers]:
        thread.start()
    for thread in workers:
        thread.join(30)
    done.set()
    reader.join(30)
    assert [sum(_calls(journal).values()) for journal in journals] == [8000, 8000]


def test_an_execution_has_the_fields_that_cursors_write_down(journal: Journal) -> None:
    record, unit = Record("SELECT a"), Work("GET /")
    execution = Execution._make(_execution(record, 5, unit))
    assert (execution.record, execution.unit, execution.mark) == (record, unit, 5)
    assert execution.elapsed == 0.001


def test_the_limit_of_repetitions_may_change_while_it_runs(journal: Journal) -> None:
    record = Record("SELECT a")
    for limit, suspects in ((10, 0), (2, 1)):
        journal.n_plus_one = limit
        unit = object()
        journal.trail.extend(_execution(record, mark, unit) for mark in range(5))
        [family] = journal.families()
        assert family.facts(str).n_plus_one == suspects


def test_memory_is_flat_over_300_000_statements_with_lists_of_all_lengths(
    journal: Journal,
) -> None:
    """Through the real book, as in a process that runs for a year."""
    book = Book()
    texts = [f"SELECT a FROM b WHERE c IN ({', '.join(['%s'] * n)})" for n in range(1, 300)]
    rng = random.Random(1)

    def run(executions: int) -> int:
        for n in range(executions):
            sql = texts[n % 299] if n % 3 else f"SELECT '{n}' FROM t{n % 5000}_ OFFSET {n}"
            unit = Work("GET /")
            journal.trail.append(
                (book.look_up(sql), unit, unit, PLACE, rng.random(), 1, 0.0, n, None, False)
            )
            if len(journal.trail) >= FOLD_AT:
                journal.fold()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        run(5_000)  # tracing is slow: this much fills every bound
        settled = run(45_000)
        grown = run(100_000) - settled
    finally:
        tracemalloc.stop()
    run(150_000)
    assert grown < 300_000, f"{grown:,} bytes"
    assert settled < 20_000_000, f"{settled:,} bytes"
    assert len(journal._families) <= 2000
    assert sum(_calls(journal).values()) == 300_000


def test_bulk_inserts_of_a_megabyte_do_not_pile_up_until_they_are_counted(
    journal: Journal,
) -> None:
    book = Book()
    for n in range(20):
        rows = ", ".join([f"(%s, {n})"] * 100_000)
        _run(journal, book.look_up(f"INSERT INTO a VALUES {rows}"))
    assert sum(len(execution[0].sql) for execution in journal.trail) < 2_000_000


def test_options_name_the_limit_that_the_journal_begins_with(journal: Journal) -> None:
    assert journal.n_plus_one == PoolOptions.parse(True).n_plus_one_threshold
