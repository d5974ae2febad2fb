"""Statements are counted exactly, by whoever is there, in a space that has bounds."""

import gc
import logging
import random
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable
from types import CodeType
from typing import Any

import pytest

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.execution.statements import Statements
from django_psycopg_pooled.execution.watched import WatchedSession
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.runtime.threads import ThreadRuntime
from django_psycopg_pooled.statements.book import Book, Record
from django_psycopg_pooled.statements.journal import FOLD_AT, FOLD_HERE, OTHER, Execution, Journal
from django_psycopg_pooled.testing import ManualClock, ScriptedDriver
from django_psycopg_pooled.tracking.labels import Work
from django_psycopg_pooled.tracking.stacks import capture
from tests.unit.scripted_binding import ScriptedBinding

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
            journal.full()


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
                journal.full()
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


# ---- who counts


class Worker:
    """A worker that has time when the test says so."""

    def __init__(self, journal: Journal) -> None:
        self.asked: deque[Callable[[], None]] = deque()
        self.reports = 0
        journal.in_background = self.asked.append
        journal.after_fold = self._report

    def _report(self) -> None:
        self.reports += 1

    def work(self) -> None:
        while self.asked:
            self.asked.popleft()()


def _session(journal: Journal) -> WatchedSession:
    """A session whose ran() is a cursor's."""
    clock = ManualClock()
    statements = Statements("shop", ScriptedDriver(), ScriptedBinding(clock), PoolOptions())
    session = statements.session()
    session.journal, session.last, session.unit = journal, capture(), object()
    return session


def test_who_executes_asks_once_for_all_to_be_counted_and_counts_nothing(journal: Journal) -> None:
    worker, session, record = Worker(journal), _session(journal), Record("SELECT a")
    for asked in (0, 1, 1, 1):
        assert len(worker.asked) == asked
        for _ in range(FOLD_AT):
            session.ran(record, None, 0.001, 1, None, False)
    assert len(journal.trail) == 4 * FOLD_AT
    worker.work()
    assert (len(journal.trail), worker.reports) == (0, 1)
    for asked in (0, 1):
        assert len(worker.asked) == asked
        for _ in range(FOLD_AT):
            session.ran(record, None, 0.001, 1, None, False)
    assert _calls(journal) == {"SELECT a": 6 * FOLD_AT}


def test_what_a_worker_counts_while_it_is_asked_is_not_asked_for_twice(journal: Journal) -> None:
    worker = Worker(journal)
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    journal.fold()  # as the lookout does
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    assert len(worker.asked) == 1


def test_if_no_worker_comes_statements_count_a_part_each_time_and_report_nothing(
    journal: Journal,
) -> None:
    worker, record = Worker(journal), Record("SELECT a")
    _run(journal, *[record] * (FOLD_HERE - 1))
    assert len(journal.trail) == FOLD_HERE - 1
    _run(journal, record)
    assert len(journal.trail) == FOLD_HERE - FOLD_AT
    _run(journal, *[record] * (3 * FOLD_HERE))
    assert FOLD_HERE - FOLD_AT <= len(journal.trail) < FOLD_HERE
    assert (len(worker.asked), worker.reports) == (1, 0)
    worker.work()
    assert (len(journal.trail), worker.reports) == (0, 1)
    assert _calls(journal) == {"SELECT a": 4 * FOLD_HERE}


def test_where_there_are_no_workers_whoever_executes_counts_few_at_a_time(
    journal: Journal,
) -> None:
    longest = 0
    for _ in range(3 * FOLD_AT):
        _run(journal, Record("SELECT a"))
        longest = max(longest, len(journal.trail))
    assert longest == FOLD_AT - 1


@pytest.mark.parametrize("has_asked", [False, True])
def test_who_was_interrupted_while_asking_has_not_asked(journal: Journal, has_asked: bool) -> None:
    worker = Worker(journal)

    def interrupted(task: Callable[[], None]) -> None:
        if has_asked:
            worker.asked.append(task)
        raise KeyboardInterrupt

    journal.in_background = interrupted
    with pytest.raises(KeyboardInterrupt):
        _run(journal, *[Record("SELECT a")] * FOLD_AT)
    worker.work()
    journal.in_background = worker.asked.append
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    assert len(worker.asked) == 1
    assert _calls(journal) == {"SELECT a": 2 * FOLD_AT}


@pytest.mark.parametrize("where", ["asking", "counting"])
def test_a_defect_in_asking_or_counting_harms_no_statement_and_no_worker_and_is_said_once(
    journal: Journal,
    where: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, session, record = Worker(journal), _session(journal), Record("SELECT a")

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        name = {"asking": "in_background", "counting": "_fold_locked"}[where]
        patch.setattr(journal, name, defect)
        for _ in range(2):
            for _ in range(FOLD_AT):
                session.ran(record, None, 0.001, 1, None, False)
            worker.work()
    assert [r.message for r in caplog.records] == ["statements could not be counted; said once"]
    session.ran(record, None, 0.001, 1, None, False)
    worker.work()
    assert not journal.trail


def test_a_child_of_fork_asks_a_worker_of_its_own(journal: Journal) -> None:
    worker = Worker(journal)
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    journal.restart()
    worker.asked.clear()  # as the pool's runtime does
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    assert len(worker.asked) == 1
    worker.work()
    assert _calls(journal) == {"SELECT a": FOLD_AT}


def test_eight_threads_and_a_pools_workers_lose_nothing_and_count_nothing_twice() -> None:
    runtime = ThreadRuntime("journal", 3, SYSTEM_CLOCK)
    journal, book = Journal(SYSTEM_CLOCK, capacity=30), Book()
    journal.in_background = runtime.submit
    reporters: set[str] = set()
    journal.after_fold = lambda: reporters.add(threading.current_thread().name)

    def execute(number: int) -> None:
        session, rng = _session(journal), random.Random(number)
        for n in range(2000):
            record = book.look_up(f"SELECT t{rng.randrange(40)}_")
            session.ran(record, (n,), 0.001, 1, None, False)

    threads = [threading.Thread(target=execute, args=(n,), name="web") for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    deadline = SYSTEM_CLOCK.monotonic() + 30
    while journal._asked:
        assert SYSTEM_CLOCK.monotonic() < deadline
        SYSTEM_CLOCK.sleep(0.005)
    assert reporters == {"pool-journal"}
    assert sum(_calls(journal).values()) == 16_000
    runtime.stop()


# ---- the interpreter's exit


def test_at_exit_a_worker_that_counts_or_reports_is_waited_for() -> None:
    runtime = ThreadRuntime("journal", 1, SYSTEM_CLOCK)
    journal = Journal(SYSTEM_CLOCK)
    journal.in_background = runtime.submit
    begun, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def report() -> None:
        begun.set()
        go_on.wait(30)
        done.append("reported")

    journal.after_fold = report
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    assert begun.wait(30)

    class Clock(ManualClock):
        def sleep(self, seconds: float) -> None:
            go_on.set()  # not before somebody waits
            SYSTEM_CLOCK.sleep(seconds)

    journal._clock = Clock()
    journal.finish()
    assert done == ["reported"]
    runtime.stop()


def test_at_exit_what_no_worker_has_come_for_is_done_by_whoever_exits(journal: Journal) -> None:
    worker = Worker(journal)
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    journal.finish()
    assert (len(journal.trail), worker.reports) == (0, 1)


def test_at_exit_nothing_is_done_that_nobody_has_asked_for(journal: Journal) -> None:
    worker = Worker(journal)
    _run(journal, Record("SELECT a"))
    journal.finish()
    assert (len(journal.trail), worker.reports) == (1, 0)
    _run(journal, *[Record("SELECT a")] * FOLD_AT)
    assert len(worker.asked) == 1  # the look at it has not taken the place of an ask
