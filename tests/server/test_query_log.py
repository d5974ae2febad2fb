"""Slow statements in the log as they happen, a trace for a while, and a report now and then."""

import io
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from django.db import DatabaseError, models

from django_psycopg_pooled import OptionsError, pools
from django_psycopg_pooled.integration import queries
from django_psycopg_pooled.integration.queries import Queries
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.statements.book import Record
from django_psycopg_pooled.statements.journal import FOLD_AT, Execution, Journal
from django_psycopg_pooled.testing import ManualClock
from django_psycopg_pooled.tracking import stacks
from django_psycopg_pooled.tracking.labels import Work, set_label
from tests.server.databases import Databases
from tests.server.support import borrow, eventually, pool_of, run_script

HERE = "tests/server/test_query_log.py"
SECRET = "hunter2"
PLACE: tuple[CodeType, int] = (compile("1", "/srv/views.py", "exec"), 2)

Said = list[tuple[int, str]]


@pytest.fixture
def said() -> Iterator[Said]:
    """What is logged about statements: levels and texts."""
    said: Said = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append((record.levelno, record.getMessage()))

    logger, handler = logging.getLogger("django_psycopg_pooled.queries"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(level)


class Desk:
    """A journal and what users see of it, on a clock that stands still."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.journal = Journal(self.clock)
        self.queries = Queries("desk", self.journal, self.options(**options), self.clock)

    def options(self, **options: Any) -> PoolOptions:
        return PoolOptions.parse(options)

    def run(self, sql: str = "SELECT a", elapsed: float = 0.001, **more: Any) -> None:
        """As a cursor does behind a statement."""
        execution = Execution(
            Record(sql), object(), None, PLACE, elapsed, 1, 0.0, None, None, False
        )._replace(**more)
        self.journal.trail.append(tuple(execution))
        if elapsed >= self.journal.slow_after:
            self.journal.slow(execution, [PLACE])


def line_of(name: str) -> int:
    """The number of the line that ends with this mark."""
    lines = Path(__file__).read_text().splitlines()
    [number] = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {name}")]
    return number


# ---- slow statements


def sleep(connection: PooledWrapper, seconds: float, *, fail: bool = False) -> None:
    with connection.cursor() as cursor:
        sql = "SELECT pg_sleep(%s), %s" + ("::int" if fail else "")
        cursor.execute(sql, [seconds, SECRET])  # line: sleep


def test_a_slow_statement_is_logged_at_once_with_text_line_and_label(
    databases: Databases, said: Said
) -> None:
    connection = databases.add(alias="default")
    pool_of(connection).configure(slow_query_threshold=0.05)
    sleep(connection, 0)
    assert said == []
    set_label("GET /slow/")
    try:
        sleep(connection, 0.06)
    finally:
        set_label(None)
    [(level, text)] = said
    assert level == logging.WARNING
    assert re.fullmatch(
        r"pool 'default': slow, above 50\.0 ms: [\d.]+ ms,"
        rf" at {HERE}:{line_of('sleep')} in sleep, in GET /slow/: SELECT pg_sleep\(%s\), %s",
        text,
    )


def test_the_error_of_a_slow_statement_is_named_by_its_sqlstate_alone(
    databases: Databases, said: Said
) -> None:
    connection = databases.add({"slow_query_threshold": 1e-6})
    with pytest.raises(DatabaseError, match=SECRET):
        sleep(connection, 0, fail=True)
    [(_, text)] = said
    assert ", 22P02, at " in text
    assert SECRET not in text


def test_the_threshold_may_change_while_it_runs_and_is_checked(said: Said) -> None:
    desk = Desk(slow_query_threshold=1)
    desk.run(elapsed=0.5)
    desk.queries.apply(desk.options(slow_query_threshold=0.4))
    desk.run(elapsed=0.5)
    desk.queries.apply(desk.options())
    desk.run("SELECT b", elapsed=100.0)
    assert len(said) == 1
    with pytest.raises(OptionsError, match="slow_query_threshold"):
        desk.options(slow_query_threshold=-1)


def test_a_statement_that_stays_slow_is_one_line_in_ten_seconds(said: Said) -> None:
    desk = Desk(slow_query_threshold=0.1)
    for n in range(50):
        desk.run(f"SELECT a, {n}", elapsed=0.2)
    desk.run("SELECT b", elapsed=0.2)
    assert [text.rpartition(": ")[2] for _, text in said] == ["SELECT a, ?", "SELECT b"]
    desk.clock.advance(10)
    desk.run("SELECT a, 1", elapsed=0.2)
    assert said[-1][1].endswith("SELECT a, ? (49 more of it since it was last logged)")


def test_what_is_remembered_of_slow_statements_has_bounds(said: Said) -> None:
    desk = Desk(slow_query_threshold=0.1)
    for n in range(2500):
        desk.run(f"SELECT a_{n}_", elapsed=0.2)
    assert len(said) == 2500
    assert len(desk.queries._reported_at) <= 1000


def test_a_child_of_fork_logs_though_the_parent_was_at_it(said: Said) -> None:
    desk = Desk(slow_query_threshold=0.1)
    desk.queries._lock.acquire()
    desk.queries.restart()
    desk.run(elapsed=1.0)
    assert len(said) == 1


def test_no_text_is_made_of_a_slow_statement_that_no_logger_wants(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(slow_query_threshold=0.1)
    made: list[object] = []

    def text_of(what: object) -> str:
        made.append(what)
        return "text"

    monkeypatch.setattr(queries, "fingerprint", text_of)
    monkeypatch.setattr(stacks, "place", text_of)
    queries.logger.setLevel(logging.ERROR)
    desk.run(elapsed=0.2)
    assert made == []
    queries.logger.setLevel(logging.WARNING)
    desk.run(elapsed=0.2)
    assert len(said) == 1  # what nobody could hear does not count as said
    assert made == ["SELECT a", [PLACE], "SELECT a"]


def test_off_it_costs_the_statement_nothing() -> None:
    assert Desk().journal.slow_after == float("inf")


# ---- a trace


def test_a_trace_logs_every_statement_for_so_long_and_ends_by_itself(said: Said) -> None:
    desk = Desk()
    desk.queries.trace(60)
    work = Work("GET /a/")
    desk.run("SELECT 'x'", elapsed=0.000_5, work=work)
    desk.clock.advance(59)
    desk.run("SELECT 'x'", elapsed=2.0, sqlstate="57014")
    desk.clock.advance(1)
    desk.run("SELECT late")
    assert desk.journal.slow_after == float("inf")
    assert said == [
        (20, "pool 'desk': trace: 500 us, at /srv/views.py:1 in <module>, in GET /a/: SELECT ?"),
        (20, "pool 'desk': trace: 2.0 s, 57014, at /srv/views.py:1 in <module>: SELECT ?"),
    ]


def test_a_trace_may_leave_out_quick_statements_and_be_ended_early(said: Said) -> None:
    desk = Desk()
    desk.queries.trace(60, threshold=0.1)
    desk.run("SELECT quick", elapsed=0.05)
    desk.run("SELECT long", elapsed=0.1)
    desk.queries.trace(0)
    desk.run("SELECT late", elapsed=5.0)
    assert [text.rpartition(": ")[2] for _, text in said] == ["SELECT long"]


def test_a_trace_does_not_replace_the_log_of_slow_statements(said: Said) -> None:
    desk = Desk(slow_query_threshold=1)
    desk.queries.trace(60)
    desk.run(elapsed=2.0)
    desk.clock.advance(60)
    desk.run("SELECT b", elapsed=2.0)
    assert [level for level, _ in said] == [logging.INFO, logging.WARNING, logging.WARNING]


def test_a_trace_of_a_pool_tells_of_what_django_does(databases: Databases, said: Said) -> None:
    class Catalogue(models.Model):
        datname = models.TextField(primary_key=True)

        objects: models.Manager[Any] = models.Manager()

        class Meta:
            app_label = "query_log"
            db_table = "pg_database"
            managed = False

    connection = databases.add()
    borrow(connection)
    pools[connection.alias].queries.trace(60)
    assert Catalogue.objects.using(connection.alias).get(pk="tests")
    [(level, text)] = said
    assert level == logging.INFO
    assert 'FROM "pg_database" WHERE "pg_database"."datname" = %s' in text


# ---- the report


def test_a_report_is_logged_when_it_is_due_and_something_was_counted(said: Said) -> None:
    desk = Desk(query_report_interval=60)
    desk.run()
    desk.journal.fold()
    desk.clock.advance(60)
    assert said == []
    desk.run()
    desk.journal.fold()
    desk.journal.fold()
    [(level, text)] = said
    assert level == logging.INFO
    assert text.startswith("Pool 'desk': statements by total_time, of the last 60.0 s\n")
    assert "  SELECT a\n" in text
    desk.clock.advance(60)
    desk.journal.fold()
    assert len(said) == 2


def test_the_interval_may_change_while_it_runs(said: Said) -> None:
    desk = Desk()
    for interval, reports in ((0, 0), (30, 1), (0, 1)):
        desk.queries.apply(desk.options(query_report_interval=interval))
        desk.clock.advance(30)
        desk.journal.fold()
        assert len(said) == reports


def test_another_change_of_options_does_not_put_the_report_off(said: Said) -> None:
    desk = Desk(query_report_interval=60)
    desk.clock.advance(59)
    desk.queries.apply(desk.options(query_report_interval=60, max_size=3))
    desk.clock.advance(1)
    desk.journal.fold()
    assert len(said) == 1


def test_a_report_names_the_ten_that_cost_most(said: Said) -> None:
    desk = Desk(query_report_interval=60)
    for n in range(30):
        desk.run(f"SELECT a_{n}_", elapsed=n + 1.0)
    desk.clock.advance(60)
    desk.journal.fold()
    named = re.findall(r"SELECT a_(\d+)_", said[0][1])
    assert named == [str(n) for n in range(29, 19, -1)]


def test_a_child_of_forks_first_report_is_an_interval_away(said: Said) -> None:
    desk = Desk(query_report_interval=60)
    desk.clock.advance(59)
    desk.queries.restart()
    desk.clock.advance(59)
    desk.journal.fold()
    assert said == []
    desk.clock.advance(1)
    desk.journal.fold()
    assert len(said) == 1


def test_the_report_is_written_by_a_worker_and_not_by_who_executes(
    databases: Databases, said: Said
) -> None:
    connection = databases.add({"query_report_interval": 1e-6, "idle_in_transaction_threshold": 0})
    writers: list[str] = []
    with handler(lambda record: writers.append(threading.current_thread().name)):
        with connection.cursor() as cursor:
            for _ in range(FOLD_AT):
                cursor.execute("SELECT 1")
        eventually(lambda: writers)
    assert set(writers) == {f"pool-{connection.alias}"}


DUE_AT_EXIT = """
import atexit, logging, sys, threading, time
logger = logging.getLogger("django_psycopg_pooled.queries")
logger.addHandler(logging.StreamHandler(sys.stdout))
logger.setLevel(logging.INFO)
journal = connection.pool._statements.journal
report, begun, ending = journal.after_fold, threading.Event(), threading.Event()
def slowly():
    begun.set()
    ending.wait(20)
    time.sleep(0.2)  # longer than all else that is done at exit
    report()
journal.after_fold = slowly
with connection.cursor() as cursor:
    for n in range(256): cursor.execute("SELECT %s", [n])
begun.wait(20)
atexit.register(ending.set)
"""


def test_a_report_that_a_worker_is_about_to_write_is_written_before_the_interpreter_ends(
    databases: Databases,
) -> None:
    entry = databases.settings({"query_report_interval": 1e-6, "idle_in_transaction_threshold": 0})
    done = run_script(DUE_AT_EXIT, {"default": entry}, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ +256 .*\n  SELECT %s$", done.stdout, re.MULTILINE)


# ---- watching never changes the outcome


@contextmanager
def handler(emit: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    logger = logging.getLogger("django_psycopg_pooled.queries")
    own = logging.Handler()
    own.emit = emit  # type: ignore[method-assign,assignment]
    logger.addHandler(own)
    try:
        yield
    finally:
        logger.removeHandler(own)


def test_a_handler_that_executes_statements_itself_does_not_hear_of_them(
    databases: Databases, said: Said
) -> None:
    connection = databases.add({"slow_query_threshold": 1e-6})
    pools[connection.alias].queries.trace(60)
    with handler(lambda record: sleep(connection, 0)), connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchall() == [(1,)]
    assert len(said) == 2  # as traced, and as slow


def test_a_defect_in_telling_is_logged_and_the_statement_is_not_harmed(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(slow_query_threshold=0.1)
    monkeypatch.setattr(desk.queries, "_said", lambda *arguments: 1 / 0)
    stream = io.StringIO()
    with handler(logging.StreamHandler(stream).emit):
        try:
            raise ValueError(SECRET)  # as a driver's error is on its way just then
        except ValueError:
            desk.run(elapsed=1.0)
    [(level, text)] = said
    assert (level, text) == (logging.ERROR, "pool 'desk': could not tell of its statements")
    assert "ZeroDivisionError" in stream.getvalue()
    assert SECRET not in stream.getvalue()
