"""pool.queries: what each statement has cost, who executed it, and how often too often."""

import importlib.util
import io
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections, models, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from django_psycopg_pooled import pools
from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.integration.queries import Queries
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.statements.journal import FOLD_AT, Journal
from tests.labelled import labelled
from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program
from tests.server.support import (
    PREAMBLE,
    Call,
    borrow,
    eventually,
    pool_of,
    require,
    run_python,
    run_script,
    value,
    wrapper,
)
from tests.server.test_gevent import GREEN

HERE = "tests/server/test_queries.py"
COUNT = "SELECT count(*) FROM books"


class Book(models.Model):
    title = models.TextField(unique=True)

    objects: models.Manager["Book"] = models.Manager()

    class Meta:
        app_label = "queries"
        db_table = "books"


@pytest.fixture
def connection(databases: Databases) -> Iterator[PooledWrapper]:
    """'default', with a hundred books; nothing is counted of how they came there."""
    databases.server.psql(
        "CREATE TABLE books (id bigserial PRIMARY KEY, title text UNIQUE);"
        "INSERT INTO books (title) SELECT 'book ' || n FROM generate_series(1, 100) n",
        "tests",
    )
    connection = databases.add({"max_size": 2, "timeout": 10}, alias="default")
    borrow(connection)
    yield connection
    connection.close()
    connection.close_pool()
    databases.server.psql("DROP TABLE books", "tests")


def execute(connection: PooledWrapper, sql: str, params: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def queries_of(connection: PooledWrapper) -> Queries:
    return pools[connection.alias].queries


def found(connection: PooledWrapper, part: str) -> QueryFacts:
    """The facts of the one statement that has *part* in its text."""
    top = queries_of(connection).top(100)
    [facts] = [facts for facts in top if part in facts.text]
    return facts


def line_of(name: str) -> int:
    """The number of the line that ends with this mark."""
    lines = Path(__file__).read_text().splitlines()
    [number] = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {name}")]
    return number


# ---- what is counted


def test_a_statement_of_the_orm_is_counted_with_its_rows_and_its_line(
    connection: PooledWrapper,
) -> None:
    for _ in range(3):
        list(Book.objects.filter(id__lte=7))  # line: orm
    facts = found(connection, 'FROM "books"')
    assert facts.text.endswith('WHERE "books"."id" <= %s')
    assert (facts.calls, facts.rows, facts.errors) == (3, 21, 0)
    assert 0 < facts.min_s <= facts.p50_s <= facts.max_s < 5
    assert facts.total_s == pytest.approx(3 * facts.mean_s)
    [caller] = facts.callers
    line = line_of("orm")
    assert caller.text.startswith(f"{HERE}:{line} in ")
    assert caller.share == 1.0


def test_every_way_to_execute_is_counted_once(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'execute' AS a")
        cursor.executemany("UPDATE books SET title = title WHERE id = %s", [[1], [2], [3]])
    raw: Any = connection.connection
    with raw.cursor() as own:
        own.execute("SELECT 'raw' AS b")
        if is_psycopg3:
            with own.copy("COPY books (title) TO STDOUT") as copy:
                assert len(list(copy)) == 100
            assert len(list(own.stream("SELECT c.id FROM books c"))) == 100
        else:
            own.copy_expert("COPY books (title) TO STDOUT", io.StringIO())
            own.callproc("pg_backend_pid")
    with transaction.atomic():
        assert len(list(Book.objects.order_by("title").iterator(chunk_size=10))) == 100
    texts = ["SELECT ? AS a", "UPDATE books", "SELECT ? AS b", "COPY books", "ORDER BY"]
    texts.append("FROM books c" if is_psycopg3 else "FROM pg_backend_pid()")
    assert {text: found(connection, text).calls for text in texts} == dict.fromkeys(texts, 1)


def test_lists_of_all_lengths_pages_and_savepoints_are_one_statement_each(
    connection: PooledWrapper,
) -> None:
    for n in range(1, 30):
        list(Book.objects.filter(id__in=range(n)))
        list(Book.objects.order_by("id")[n : n + 3])
        with transaction.atomic(), transaction.atomic():
            Book.objects.filter(id=n).exists()
    for part in (" IN (...)", "LIMIT", 'SAVEPOINT "...', "RELEASE"):
        texts = [f.text for f in queries_of(connection).top(100) if part in f.text]
        assert sorted(texts) == sorted(set(texts))
    # Longer lists are arrays where statements are prepared.
    lists = [f for f in queries_of(connection).top(100) if " IN (" in f.text or "ANY(" in f.text]
    assert sum(f.calls for f in lists) == 29
    assert found(connection, "OFFSET ?").calls == 29
    assert found(connection, "RELEASE SAVEPOINT").calls == 29


def test_errors_are_counted_by_sqlstate_and_reach_the_user_as_they_are(
    connection: PooledWrapper,
) -> None:
    for _ in range(2):
        with pytest.raises(DatabaseError, match="duplicate key"):
            Book.objects.create(title="book 1")
    execute(connection, "SELECT 1 / %s", [1])
    with pytest.raises(DatabaseError, match="division by zero"):
        execute(connection, "SELECT 1 / %s", [0])
    insert, divide = found(connection, "INSERT"), found(connection, "/ %s")
    assert (insert.calls, insert.errors_by_sqlstate) == (2, {"23505": 2})
    assert (divide.calls, divide.errors_by_sqlstate) == (2, {"22012": 1})


def test_the_time_for_a_connection_is_told_apart_from_the_statements(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 10})
    borrow(connection)
    call = Call(lambda: execute(wrapper(connection.alias), "SELECT 'waited'"))
    eventually(lambda: pool_of(connection).get_stats()["requests_waiting"] == 1)
    execute(connection, "SELECT pg_sleep(0.5)")
    connection.close()
    call.outcome()
    facts = found(connection, "SELECT ?")
    assert facts.waited_s >= 0.5 > facts.total_s
    assert found(connection, "pg_sleep").waited_s < 0.5


def test_eight_threads_over_two_pools_are_counted_exactly(databases: Databases) -> None:
    aliases = [databases.add({"max_size": 8, "timeout": 20}).alias for _ in range(2)]
    threads, statements = 8, 2000

    def run(number: int) -> None:
        cursors = [connections[alias].cursor() for alias in aliases]
        for n in range(statements):
            cursors[(n + number) % 2].execute(f"SELECT {n % 3} AS a{n % 10}, %s", [n])

    calls = [Call(lambda n=n: run(n)) for n in range(threads)]  # type: ignore[misc]
    for call in calls:
        call.outcome()
    for alias in aliases:
        top = [f for f in pools[alias].queries.top(100) if "AS a" in f.text]
        assert [f.calls for f in top] == [threads * statements // 20] * 10
        assert sum(f.rows for f in top) == threads * statements // 2


class Unhashable(str):
    def __hash__(self) -> int:
        raise RuntimeError("no hash")


def test_parameters_that_refuse_to_be_told_apart_do_not_harm_their_statement(
    connection: PooledWrapper,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [Unhashable("a")])
        assert cursor.fetchall() == [("a",)]
    assert found(connection, "SELECT %s").calls == 1


def test_each_pool_counts_its_own(databases: Databases, connection: PooledWrapper) -> None:
    other = databases.add()
    execute(other, "SELECT 'other' AS other")
    assert not [f for f in queries_of(connection).top() if "other" in f.text]
    assert found(other, "AS other").calls == 1


def test_nothing_is_counted_if_the_option_says_so(databases: Databases) -> None:
    connection = databases.add({"track_queries": False})
    queries = queries_of(connection)
    execute(connection, "SELECT 1")
    queries.trace(10)
    execute(connection, "SELECT 1")
    assert queries.top() == []
    assert "track_queries" in queries.as_table()
    assert json.loads(queries.as_json())["statements"] == []
    queries.reset()


# ---- who executes it, and how often


def many(request: HttpRequest) -> HttpResponse:
    for n in range(1, 101):
        Book.objects.get(pk=n)  # line: many
    return HttpResponse()


def equal(request: HttpRequest) -> HttpResponse:
    for _ in range(100):
        Book.objects.get(pk=1)
    return HttpResponse()


def double() -> None:
    Book.objects.create(title="book 1")


def few(request: HttpRequest) -> HttpResponse:
    for n in range(1, 11):
        Book.objects.get(pk=n)
    return HttpResponse()


urlpatterns = [path("many/", many), path("equal/<int:pk>/", lambda r, pk: equal(r))]
urlpatterns += [path("few/", few)]


@pytest.fixture
def client() -> Iterator[Client]:
    with labelled(__name__):
        yield Client()


def test_n_plus_one_is_found_in_a_view_with_its_line_and_its_route(
    connection: PooledWrapper, client: Client
) -> None:
    for _ in range(3):
        client.get("/many/?page=1")
    [facts] = queries_of(connection).top(by="n_plus_one")
    assert (facts.n_plus_one, facts.n_plus_one_most, facts.calls) == (3, 100, 300)
    assert [c.text for c in facts.callers] == [f"{HERE}:{line_of('many')} in many"]
    assert [(c.text, c.share) for c in facts.works] == [("GET /many/", 1.0)]


def test_a_hundred_equal_statements_and_a_few_different_ones_are_not_suspect(
    connection: PooledWrapper, client: Client
) -> None:
    client.get("/equal/5/")
    client.get("/few/")
    assert queries_of(connection).top(by="n_plus_one") == []
    pool_of(connection).configure(n_plus_one_threshold=9)
    client.get("/few/")
    [facts] = queries_of(connection).top(by="n_plus_one")
    assert (facts.n_plus_one, facts.n_plus_one_most) == (1, 10)
    assert {c.text for c in facts.works} == {"GET /equal/<int:pk>/", "GET /few/"}


def test_where_no_work_is_known_a_loan_is_what_repetitions_are_counted_in(
    connection: PooledWrapper,
) -> None:
    for _ in range(2):
        for n in range(1, 21):
            Book.objects.get(pk=n)
        connection.close()
    [facts] = queries_of(connection).top(by="n_plus_one")
    assert (facts.n_plus_one, facts.n_plus_one_most, facts.works) == (2, 20, ())


SERVED = {
    "project_settings.py": PROJECT["project_settings.py"]
    + "ROOT_URLCONF = 'served_urls'\nINSTALLED_APPS = ['django_psycopg_pooled']\n",
    "served_urls.py": """
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import JsonResponse
from django.urls import path
from django_psycopg_pooled import pools

def run():
    with connection.cursor() as cursor:
        for n in range(20):
            cursor.execute("SELECT %s", [n])

def in_a_thread(request, tag):
    run()
    return JsonResponse({})

async def in_a_coroutine(request, tag):
    await sync_to_async(run)()
    return JsonResponse({})

def facts(request):
    [facts] = [f for f in pools["default"].queries.top() if f.text == "SELECT %s"]
    works = {work.text: work.calls for work in facts.works}
    return JsonResponse({"works": works, "found": [facts.n_plus_one, facts.n_plus_one_most]})

urlpatterns = [path("thread/<int:tag>/", in_a_thread), path("coroutine/<int:tag>/", in_a_coroutine)]
urlpatterns += [path("facts/", facts), path("pool/", lambda request: JsonResponse({}))]
""",
    "served_asgi.py": "from django.core.asgi import get_asgi_application\n"
    "application = get_asgi_application()\n",
}
UVICORN = ("uvicorn", "--lifespan=off", "--port={port}", "served_asgi:application")
GEVENT = (
    "gunicorn", "--worker-class=gevent", "--bind=127.0.0.1:{port}", "project_wsgi:application",
)  # fmt: skip


@pytest.mark.parametrize(
    ("program", "views"),
    [(UVICORN, ["thread", "coroutine"]), (GEVENT, ["thread"])],  # gevent runs no coroutines
    ids=["uvicorn", "gevent"],
)
def test_requests_side_by_side_are_told_apart_whatever_serves_them(
    databases: Databases,
    script_folder: Callable[[dict[str, str]], Path],
    program: tuple[str, ...],
    views: list[str],
) -> None:
    module, *arguments = program
    for needed in (module, "gevent"):
        require(importlib.util.find_spec(needed), f"needs {needed}: make .venv/.ready-test")
    folder = script_folder({**PROJECT, **SERVED})
    setup = {"default": databases.settings({"max_size": 5})}
    with Program(folder, "-m", module, *arguments, databases=setup) as server:
        server.wait_until_it_serves()
        server.get_all([f"/{view}/{n}/" for n in range(10) for view in views], at_once=10)
        assert server.get("/facts/") == {
            "works": {f"GET /{view}/<int:tag>/": 200 for view in views},
            "found": [10 * len(views), 20],
        }
        server.signal(signal.SIGTERM)
        server.end()


# ---- in which order, and how it is shown


def test_the_top_is_in_the_order_that_is_asked_for(connection: PooledWrapper) -> None:
    for _ in range(5):
        execute(connection, "SELECT 1 AS often")
    execute(connection, "SELECT pg_sleep(0.03) AS long")
    execute(connection, "SELECT generate_series(1, 500) AS wide")
    with pytest.raises(DatabaseError):
        execute(connection, "SELECT 1 / 0 AS wrong")
    queries = queries_of(connection)
    firsts = {
        "calls": "often", "total_time": "long", "mean": "long", "p95": "long", "rows": "wide",
        "errors": "wrong",
    }  # fmt: skip
    for by, name in firsts.items():
        assert queries.top(1, by)[0].text.endswith(name), by
    assert len(queries.top(2)) == 2
    assert len(queries.top(by="errors")) == 1
    assert queries.top(by="n_plus_one") == []


@pytest.mark.parametrize("ask", ["top", "as_table", "as_json"])
def test_an_order_that_does_not_exist_is_refused_with_those_that_do(
    connection: PooledWrapper, ask: str
) -> None:
    with pytest.raises(ValueError, match="total_time, calls, mean, p95, rows, errors, n_plus_one"):
        getattr(queries_of(connection), ask)(by="time")


def test_after_a_reset_counting_begins_anew(connection: PooledWrapper) -> None:
    execute(connection, COUNT)
    queries_of(connection).reset()
    assert queries_of(connection).top() == []


def test_the_table_says_in_80_columns_what_costs_how_much_and_whose_it_is(
    connection: PooledWrapper, client: Client
) -> None:
    client.get("/many/")
    with pytest.raises(DatabaseError):
        double()
    table = queries_of(connection).as_table()
    lines = table.splitlines()
    assert lines[0].startswith("Pool 'default': statements by total_time, of the last ")
    assert lines[2].split() == ["calls", "total", "mean", "p95", "rows", "errors"]
    assert max(map(len, lines)) <= 80
    at = lines.index(next(line for line in lines if 'WHERE "books"."id" = %s' in line))
    assert re.fullmatch(r" +100 +[\d.]+ m?s +\d[\d.]* [mu]s +\d[\d.]* [mu]s +100 +0", lines[at - 1])
    assert lines[at + 1] == f"  by {HERE}:{line_of('many')} in many (100 %)"
    assert lines[at + 2] == "  in GET /many/ (100 %)"
    assert lines[at + 3] == "  N+1: executed too often in 1 request or task; 100 times in one"
    assert "  errors: 1 x 23505" in lines


def test_what_is_not_printable_is_shown_as_question_marks(connection: PooledWrapper) -> None:
    execute(connection, 'SELECT 1 AS "\x1b[2J\x07"')
    assert queries_of(connection).as_table().replace("\n", "").isprintable()


def test_the_json_has_all_the_fields_of_the_facts(connection: PooledWrapper) -> None:
    execute(connection, COUNT)
    [facts] = queries_of(connection).top()
    told = json.loads(queries_of(connection).as_json())
    assert told["pool"] == "default"
    [statement] = told["statements"]
    assert statement["text"] == COUNT
    assert statement["callers"][0]["text"] == facts.callers[0].text
    assert statement.keys() == set(QueryFacts.__dataclass_fields__)


def test_few_statements_are_counted_a_moment_after_their_loan_ended(databases: Databases) -> None:
    """Else the report of a quiet process would wait for 256 of them."""
    connection = databases.add({"idle_in_transaction_threshold": 0.3})
    value(connection, "SELECT 1")
    connection.close()
    eventually(lambda: not journal_of(connection).trail)


# ---- who counts them


def journal_of(connection: PooledWrapper) -> Journal:
    journal = pool_of(connection)._statements.journal
    assert journal is not None
    return journal


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the threads that count."""
    names: set[str] = set()
    fold = Journal._fold_locked

    def noted(journal: Journal, *arguments: Any) -> None:
        names.add(threading.current_thread().name)
        fold(journal, *arguments)

    monkeypatch.setattr(Journal, "_fold_locked", noted)
    return names


UNWATCHED = {"idle_in_transaction_threshold": 0}  # nobody comes by that counts unasked


def execute_often(connection: PooledWrapper, times: int) -> None:
    with connection.cursor() as cursor:
        for n in range(times):
            cursor.execute("SELECT 'often' AS often, %s", [n])


def test_statements_are_counted_by_the_pools_workers_and_never_by_who_executes_them(
    databases: Databases, counters: set[str]
) -> None:
    connection = databases.add(UNWATCHED)
    execute_often(connection, 3 * FOLD_AT)
    connection.close()
    eventually(lambda: len(journal_of(connection).trail) < FOLD_AT)
    assert counters == {f"pool-{connection.alias}"}
    assert found(connection, "often").calls == 3 * FOLD_AT


def test_without_workers_whoever_executes_counts_and_no_thread_is_started(
    databases: Databases, counters: set[str]
) -> None:
    connection = databases.add({"num_workers": 0})
    execute_often(connection, 3 * FOLD_AT)
    assert len(journal_of(connection).trail) < FOLD_AT
    assert counters == {threading.current_thread().name}
    assert found(connection, "often").calls == 3 * FOLD_AT


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_loan_that_outlives_its_pool_is_counted_on(
    databases: Databases, num_workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    connection = databases.add({"num_workers": num_workers})
    pool = pool_of(connection)
    borrow(connection)
    pool.close()
    execute_often(connection, 3 * FOLD_AT)
    [facts] = [facts for facts in pool.queries.top() if "often" in facts.text]
    assert facts.calls == 3 * FOLD_AT
    assert not caplog.records


FORKED = """
import os, sys
pool = connection.pool
journal = pool._statements.journal
cursor = connection.cursor()
journal.in_background = lambda task: None  # it never comes
for n in range(300): cursor.execute("SELECT 'parent'")
assert len(journal.trail) == 300
journal.in_background = pool.in_background
cursor.close()
child = os.fork()
if not child:
    from tests.server.support import eventually
    with connection.cursor() as cursor:
        for n in range(300): cursor.execute("SELECT 'child' AS child")
    eventually(lambda: len(journal.trail) < 256)
    print(*[(facts.text, facts.calls) for facts in pool.queries.top()])
    connection.close()
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(*[facts.calls for facts in pool.queries.top()])
"""


def test_a_child_of_fork_has_its_own_statements_counted_though_its_parent_waits_for_a_worker(
    databases: Databases,
) -> None:
    done = run_script(FORKED, {"default": databases.settings(UNWATCHED)}, "-W", "ignore")
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["('SELECT ? AS child', 300)", "300"]


GREENLETS = (
    "from gevent import monkey\nmonkey.patch_all()\nimport gevent\n"
    + GREEN
    + PREAMBLE
    + """
from tests.server.support import eventually
pool = connection.pool
def request(number):
    try:
        with connection.cursor() as cursor:
            for n in range(200):
                cursor.execute("SELECT %s", [n])
    finally:
        connection.close()
gevent.joinall([gevent.spawn(request, number) for number in range(10)], raise_error=True)
eventually(lambda: len(pool._statements.journal.trail) < 256)
print(*[facts.calls for facts in pool.queries.top()])
"""
)


def test_greenlets_are_counted_exactly_by_a_worker_that_is_a_greenlet_too(
    databases: Databases,
) -> None:
    require(importlib.util.find_spec("gevent"), "needs gevent: make .venv/.ready-test")
    entry = databases.settings({"max_size": 5, **UNWATCHED})
    environ = {"TEST_DATABASES": json.dumps({"default": entry})}
    done = run_python("-c", GREENLETS, environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2000\n", "")


AT_EXIT = """
import atexit
pool = connection.pool
@atexit.register
def figures():
    print(*[facts.calls for facts in pool.queries.top()])
with connection.cursor() as cursor:
    for n in range(300): cursor.execute("SELECT %s", [n])
"""


def test_who_asks_at_the_interpreters_exit_gets_all_that_was_executed(
    databases: Databases,
) -> None:
    done = run_script(AT_EXIT, {"default": databases.settings()}, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "300\n", "")
