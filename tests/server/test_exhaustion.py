"""A request that waits in vain is told who has the connections. PAINS 11, 15, 16, 19.

Others say "couldn't get a connection after 30.00 sec" (sidekiq/sidekiq#2903), and users build
gauges by endpoint (onyx-dot-app/onyx#8543).
"""

import contextlib
import importlib.util
import io
import logging
import re
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.signals import request_finished, request_started
from django.db import OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path, re_path

from django_psycopg_pooled.integration import work
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.tracking.labels import LONGEST
from tests.labelled import labelled
from tests.server.databases import Databases
from tests.server.support import (
    DATABASE,
    Call,
    borrow,
    eventually,
    pool_of,
    require,
    run_python,
    value,
    wrapper,
)

HERE = "tests/server/test_exhaustion.py"
SECRET = "hunter2"


def line_of(name: str) -> int:
    """The number of the line that ends with this mark."""
    lines = Path(__file__).read_text().splitlines()
    [number] = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {name}")]
    return number


# ---- a site with one slow view


class Stage:
    """What the view works with, set by the test that asks for it."""

    alias = ""
    entered = threading.Semaphore(0)
    leave = threading.Event()


def slow(request: HttpRequest) -> HttpResponse:
    with transaction.atomic(Stage.alias):  # line: borrowed
        with connections[Stage.alias].cursor() as cursor:
            cursor.execute("SELECT %s", [SECRET])  # line: statement
        Stage.entered.release()
        Stage.leave.wait(30)  # line: now
    return HttpResponse("done")


urlpatterns = [path(f"slow{more}", slow) for more in ("", "/1", "/2", "/3", "/4")]
urlpatterns += [re_path(r"^(?s:slow.*)$", slow)]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The requests of a test are no news."""


class _Patient(ThreadedWSGIServer):
    """Its server_close() waits for the requests, whose answers arrive before their ends."""

    daemon_threads = False


@pytest.fixture
def _labels() -> Iterator[None]:
    with labelled(__name__):
        yield


@contextmanager
def site() -> Iterator[str]:
    """Django's threaded server on a free port; its address."""
    with override_settings(ROOT_URLCONF=__name__):
        server = _Patient(("127.0.0.1", 0), _Quiet)
        server.set_app(WSGIHandler())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            Stage.leave.set()
            server.shutdown()
            server.server_close()
            thread.join(20)


@contextmanager
def slow_requests(alias: str, *paths: str) -> Iterator[None]:
    """So many requests are in the midst of the slow view all the while."""
    Stage.alias = alias
    Stage.leave.clear()
    Stage.entered = threading.Semaphore(0)
    with site() as address, ExitStack() as ends:
        for which in paths:
            call = Call(lambda url=address + which: urllib.request.urlopen(url, timeout=30).close())  # type: ignore[misc]
            ends.callback(call.outcome)
            assert Stage.entered.acquire(timeout=20), call.error
        ends.callback(Stage.leave.set)  # before the others
        yield


def refused(connection: PooledWrapper, timeout: float = 0.1) -> OperationalError:
    """What this thread gets in place of a connection."""
    # Not before: who connects for the first time may need longer.
    pool_of(connection).configure(timeout=timeout)
    with pytest.raises(OperationalError) as caught:
        connection.ensure_connection()
    return caught.value


def loans(error: BaseException) -> list[str]:
    """The lines of its text that are about single loans, the longest first."""
    lines = str(error).splitlines()
    first = lines.index("Longest loans:") + 1
    return [line[2:] for line in lines[first:] if line.startswith("  ")]


# ---- what the text has


@pytest.mark.usefixtures("_labels")
def test_a_timeout_names_the_request_its_lines_and_where_its_thread_is_now(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    with slow_requests(connection.alias, "/slow"):
        error = refused(connection, 0.3)
        server_pid = pool_of(connection).snapshot().connections[0].server_pid
    what, state, *_, advice = str(error).splitlines()
    assert what == f"[P101] no connection to {connection.alias!r} within 0.3 s."
    assert state.startswith("Pool: 1 of 1 lent, 0 idle, 0 opening; 0 requests waiting.")
    assert advice.startswith("To do: (1) end those loans sooner; (2) raise max_size above 1 ")
    [loan] = loans(error)
    found = re.fullmatch(
        r"(?P<age>[\d.]+) s, thread '(?P<thread>.+)' \(GET /slow\), (?P<state>.+),"
        r" server process (?P<pid>\d+); borrowed at (?P<borrowed>.+);"
        r" transaction begun at (?P<begun>.+); last statement at (?P<statement>.+);"
        r" now at (?P<now>.+)",
        loan,
    )
    assert found, loan
    assert 0.3 <= float(found["age"]) < 10
    assert found["thread"].startswith("Thread-")
    assert found["state"] == "idle in transaction"
    assert int(found["pid"]) == server_pid
    assert found["borrowed"] == f"{HERE}:{line_of('borrowed')} in slow"
    assert found["begun"] == found["borrowed"]
    assert found["statement"] == f"{HERE}:{line_of('statement')} in slow"
    assert found["now"] == f"{HERE}:{line_of('now')} in slow"


@pytest.mark.usefixtures("_labels")
def test_the_snapshot_has_the_same_facts(databases: Databases) -> None:
    connection = databases.add({"max_size": 2, "timeout": 20})
    with slow_requests(connection.alias, "/slow"):
        [facts] = pool_of(connection).snapshot().connections
        assert facts.thread is not None
        assert facts.thread_id in [thread.ident for thread in threading.enumerate()]
    assert facts.state == "lent"
    assert facts.label == "GET /slow"
    assert facts.activity == "idle in transaction"
    assert facts.borrowed_at == f"{HERE}:{line_of('borrowed')} in slow"
    assert facts.last_statement_at == f"{HERE}:{line_of('statement')} in slow"
    assert facts.now_at == f"{HERE}:{line_of('now')} in slow"
    assert facts.in_state_s < 20


@pytest.mark.usefixtures("_labels")
def test_the_three_longest_are_named_the_longest_first(databases: Databases) -> None:
    connection = databases.add({"max_size": 4, "timeout": 20})
    with slow_requests(connection.alias, "/slow/1", "/slow/2", "/slow/3", "/slow/4"):
        named = loans(refused(connection))
    assert [re.findall(r"\(GET (.+?)\)", loan) for loan in named] == [
        ["/slow/1"], ["/slow/2"], ["/slow/3"],
    ]  # fmt: skip
    ages = [float(loan.split(" s, ")[0]) for loan in named]
    assert ages == sorted(ages, reverse=True)


@pytest.mark.usefixtures("_labels")
def test_too_many_requests_names_them_too(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "max_waiting": 1, "timeout": 20})
    alias, pool = connection.alias, pool_of(connection)
    with slow_requests(alias, "/slow"):
        waiting = Call(lambda: borrow(wrapper(alias)))
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        error = refused(connection)
        Stage.leave.set()
        waiting.outcome()
    assert isinstance(error.__cause__, DRIVER.TooManyRequests)
    assert str(error).startswith("[P102] 1 request already waiting")
    [loan] = loans(error)
    assert "(GET /slow), idle in transaction" in loan
    assert f"borrowed at {HERE}:{line_of('borrowed')} in slow" in loan
    assert f"now at {HERE}:{line_of('now')} in slow" in loan


@pytest.mark.usefixtures("_labels")
def test_every_part_is_in_logs_tracebacks_and_the_drivers_own_exception(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    stream = io.StringIO()
    logger = logging.Logger("an application's")
    logger.addHandler(logging.StreamHandler(stream))
    with slow_requests(connection.alias, "/slow"):
        pool_of(connection).configure(timeout=0.1)
        try:
            connection.ensure_connection()
        except OperationalError as error:
            logger.exception("it failed")
            told = [
                str(error),
                str(error.__cause__),
                str(error.args[0]),
                stream.getvalue(),
                "".join(traceback.format_exception(error)),
                "".join(traceback.TracebackException.from_exception(error).format()),
            ]
    for text in told:
        for part in ("[P101]", "(GET /slow)", "idle in transaction", "Longest loans:", "To do:"):
            assert part in text
        for mark in ("borrowed", "statement", "now"):
            assert f"{HERE}:{line_of(mark)} in slow" in text


def _idle(connection: PooledWrapper) -> None:
    borrow(connection)


def _idle_in_transaction(connection: PooledWrapper) -> None:
    connection.set_autocommit(False)
    value(connection, "SELECT 1")


def _aborted(connection: PooledWrapper) -> None:
    connection.set_autocommit(False)
    with pytest.raises(Exception, match="nonsense"):
        value(connection, "nonsense")


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (_idle, "idle"),
        (_idle_in_transaction, "idle in transaction"),
        (_aborted, "idle in transaction (aborted)"),
    ],
    ids=["idle", "in transaction", "aborted"],
)
def test_the_state_of_the_session_is_told(
    databases: Databases, use: Callable[[PooledWrapper], object], expected: str
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    holds, end = threading.Event(), threading.Event()

    def hold() -> None:
        use(wrapper(connection.alias))
        holds.set()
        end.wait(20)

    holder = Call(hold)
    try:
        assert holds.wait(20)
        [loan] = loans(refused(connection))
    finally:
        end.set()
        holder.outcome()
    assert f"', {expected}, server process" in loan


def test_a_statement_that_runs_is_told_as_active_with_its_line(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    alias = connection.alias

    def run() -> None:
        with wrapper(alias).cursor() as cursor:
            cursor.execute("SELECT pg_sleep(2)")  # line: running

    call = Call(run)
    eventually(lambda: databases.server.backends("state = 'active'"))
    error = refused(connection)
    databases.server.psql(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)'"
        " AND pid <> pg_backend_pid()"
    )
    with pytest.raises(OperationalError):
        call.outcome()
    [loan] = loans(error)
    assert ", active, server process" in loan
    assert loan.count(f"{HERE}:{line_of('running')} in ") == 2  # the last statement, and now


# ---- whose work it is


def _text_while_one_works(
    databases: Databases, begin: Callable[[], object], end: Callable[[], object]
) -> str:
    """What a request is told while a thread holds the only connection between *begin* and *end*."""
    connection = databases.add({"max_size": 1, "timeout": 20})
    alias = connection.alias
    holds, leave = threading.Event(), threading.Event()

    def hold() -> None:
        begin()
        borrow(wrapper(alias))
        holds.set()
        leave.wait(20)
        wrapper(alias).close()
        end()

    holder = Call(hold, "worker")
    try:
        assert holds.wait(20)
        [loan] = loans(refused(connection))
    finally:
        leave.set()
        holder.outcome()
    return loan


class Task:
    """What Celery sends its signals for."""

    name = "shop.tasks.bill"


@pytest.mark.usefixtures("_labels")
def test_a_celery_task_is_named(databases: Databases) -> None:
    require(importlib.util.find_spec("celery"), "needs celery: make .venv/.ready-test")
    from celery import signals

    work._label_tasks()
    task = Task()
    sent = {"sender": task, "task_id": "1", "task": task, "args": [SECRET], "kwargs": {}}
    try:
        text = _text_while_one_works(
            databases,
            lambda: signals.task_prerun.send(**sent),
            lambda: signals.task_postrun.send(**sent),
        )
    finally:
        for signal in (signals.task_prerun, signals.task_postrun):
            signal.disconnect(dispatch_uid=work.__name__)
    assert "thread 'worker' (task shop.tasks.bill), idle" in text
    assert SECRET not in text


COMMAND = """
import os, sys
sys.argv = ["manage.py", "bill", "--password", "hunter2"]
import django
django.setup()
from django.db import OperationalError, connection
import threading
errors = []
def other():
    try:
        connection.ensure_connection()
    except OperationalError as error:
        errors.append(str(error))
connection.ensure_connection()
thread = threading.Thread(target=other)
thread.start()
thread.join()
connection.close()
print(errors[0])
"""


def test_a_management_command_is_named_without_its_arguments(
    databases: Databases, tmp_path: Path
) -> None:
    (tmp_path / "command_settings.py").write_text(
        f"DATABASES = {{'default': {databases.settings({'max_size': 1, 'timeout': 0.1})!r}}}\n"
        "INSTALLED_APPS = ['django_psycopg_pooled']\nSECRET_KEY = 'x'\n"
    )
    environ = {
        "DJANGO_SETTINGS_MODULE": "command_settings",
        "PYTHONPATH": ":".join([str(tmp_path), *filter(None, sys.path)]),
    }
    done = run_python("-c", COMMAND, environ=environ)
    assert "thread 'MainThread' (manage.py bill), idle" in done.stdout, done.stderr
    assert SECRET not in done.stdout


@pytest.mark.usefixtures("_labels")
def test_a_request_of_djangos_test_client_is_named_while_it_lasts(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    Stage.alias, Stage.entered = connection.alias, threading.Semaphore(0)
    Stage.leave.clear()
    with override_settings(ROOT_URLCONF=__name__):
        call = Call(lambda: Client().post("/slow", {"password": SECRET}).status_code)
        try:
            assert Stage.entered.acquire(timeout=20)
            [loan] = loans(refused(connection))
        finally:
            Stage.leave.set()
            assert call.outcome() == 200
    assert "(POST /slow)" in loan
    assert SECRET not in loan


@pytest.mark.usefixtures("_labels")
def test_what_a_thread_does_after_its_request_is_not_told_as_the_request(
    databases: Databases,
) -> None:
    text = _text_while_one_works(
        databases,
        lambda: (
            request_started.send(None, environ={"REQUEST_METHOD": "GET", "PATH_INFO": "/gone"}),
            request_finished.send(None),
        ),
        lambda: None,
    )
    assert "thread 'worker', idle" in text
    assert "/gone" not in text


# ---- strangers' texts, and secrets


@pytest.mark.usefixtures("_labels")
@pytest.mark.parametrize(
    "hostile",
    [
        "/slow/%0d%0aERROR%20forged%20line",
        "/slow/%1b%5b2J%1b%5d0;owned%07",
        "/slow/%e2%80%ae%e2%80%a8%c2%9b",
        "/slow/" + "a" * 10_000,
        "/slow/%ff%fe",
        "/slow/%27)%0aTo%20do:%20(1)",
    ],
    ids=["new line", "escape", "unicode", "10 kB", "not utf-8", "quotes"],
)
def test_a_hostile_url_stays_one_short_printable_line(databases: Databases, hostile: str) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    with slow_requests(connection.alias, hostile + f"?token={SECRET}"):
        error = refused(connection)
    lines = str(error).splitlines()
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    [loan] = loans(error)
    assert "(GET /(?s:slow.*))" in loan  # its route
    assert len(loan) < LONGEST + 400
    assert SECRET not in str(error)


@pytest.mark.usefixtures("_labels")
def test_no_parameter_password_or_query_string_appears(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    password = databases.server.password
    with slow_requests(connection.alias, f"/slow?password={SECRET}"):
        error = refused(connection)
        pool = pool_of(connection)
        told = [str(error), str(error.__cause__), repr(pool.snapshot()), pool.as_table()]
    for text in told:
        assert SECRET not in text
        assert password not in text
        assert "?" not in text


# ---- the nested holder


def test_who_waits_for_a_second_one_is_told_that_he_has_the_first(databases: Databases) -> None:
    """PAINS 15: aio-libs/aiopg#113, MagicStack/asyncpg#5."""
    connection = databases.add({"max_size": 1, "timeout": 20})
    borrow(connection)
    second = connection.copy()
    error = refused(second)
    [loan] = loans(error)
    assert "thread 'MainThread' (this very thread), idle" in loan
    assert "; now at " not in loan
    assert "This thread already holds a connection of this pool and waits for one more" in str(
        error
    )


def test_two_aliases_of_one_pool_deadlock_and_say_so_in_each_thread(databases: Databases) -> None:
    """PAINS 15: n threads with one each, which all want a second one."""
    pool_options = {"max_size": 3, "timeout": 20, "name": "shared"}
    first, second = databases.add(pool_options), databases.add(pool_options)
    assert pool_of(first) is pool_of(second)
    aliases = first.alias, second.alias
    together = threading.Barrier(3)

    def nest() -> str:
        borrow(wrapper(aliases[0]))
        together.wait(20)
        text = str(refused(wrapper(aliases[1])))
        together.wait(20)
        return text

    for text in [call.outcome() for call in [Call(nest) for _ in range(3)]]:
        assert "Pool: 3 of 3 lent" in text
        assert text.count("(this very thread)") == 1
        assert "This thread already holds a connection of this pool and waits for one more" in text


def test_too_many_requests_tells_the_nested_holder_too(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "max_waiting": 1, "timeout": 20})
    alias, pool = connection.alias, pool_of(connection)
    borrow(connection)
    waiting = Call(lambda: borrow(wrapper(alias)))
    eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
    text = str(refused(connection.copy(), 20))
    connection.close()
    waiting.outcome()
    assert text.startswith("[P102] ")
    assert "This thread already holds a connection of this pool and waits for one more" in text


def test_a_thread_that_holds_none_is_not_told_that_it_does(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    text = _text_while_one_works(databases, lambda: None, lambda: None)
    assert "this very thread" not in text
    assert "already holds" not in str(text)
    assert value(connection, "SELECT 1") == 1


# ---- the bound on waiting


def test_no_wait_exceeds_its_timeout_and_no_crowd_the_maximum(databases: Databases) -> None:
    """PAINS 16: jneight/django-db-geventpool#70, #96."""
    connection = databases.add({"max_size": 3, "timeout": 1})
    alias, pool = connection.alias, pool_of(connection)
    together = threading.Barrier(100)
    most = [0]

    def ask() -> float:
        together.wait(30)
        began = time.perf_counter()
        with contextlib.suppress(OperationalError):
            value(wrapper(alias), "SELECT pg_sleep(0.4)")
            most[0] = max(most[0], pool.snapshot().size)
            return 0.0
        return time.perf_counter() - began

    calls = [Call(ask) for _ in range(100)]
    eventually(lambda: pool.get_stats()["requests_waiting"] > 50)
    assert databases.server.backends(f"datname = '{DATABASE}'") <= 3
    waits = [call.outcome() for call in calls]
    assert sum(wait > 0 for wait in waits) >= 80
    assert max(waits) < 4  # 100 threads on two cores write their errors at once
    assert most[0] <= 3
    assert pool.get_stats()["requests_waiting"] == 0
