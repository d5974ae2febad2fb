"""Others who watch statements see what they see without us, and we count each statement once."""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_psycopg_pooled import pools
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import borrow, require, run_script

PREPARED = {"prepare": "auto", "prepare_threshold": 0}
EXECUTED = 7  # by use() and by its copies in the scripts


def use(connection: PooledWrapper) -> None:
    """EXECUTED statements of several kinds, one of which fails."""
    with transaction.atomic(connection.alias), connection.cursor() as cursor:
        cursor.execute("SELECT %s AS a, %s", [1, "it's"])
        cursor.execute("SELECT 'literal', 100 %% 7 WHERE 1 = %s", [1])
        cursor.execute("SELECT 1")
        cursor.executemany("SELECT %s::int", [[1], [2]])
        cursor.execute("SELECT %(a)s", {"a": 5})
    with pytest.raises(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / %s", [0])
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s AS a, %s", [2, "b"])


def counted(connection: PooledWrapper) -> int:
    return sum(facts.calls for facts in pools[connection.alias].queries.top(100))


@pytest.fixture
def stock(databases: Databases) -> PooledWrapper:
    """An alias without a pool."""
    connection = databases.add(False)
    borrow(connection)
    return connection


@pytest.fixture(params=[{}, PREPARED], ids=["plain", "prepared"])
def pooled(databases: Databases, request: pytest.FixtureRequest) -> PooledWrapper:
    connection = databases.add(request.param)
    borrow(connection)
    return connection


# ---- Django's own


def test_captured_queries_are_those_of_the_stock_backend(
    stock: PooledWrapper, pooled: PooledWrapper
) -> None:
    captured: list[list[str]] = []
    for connection in (stock, pooled):
        for _ in range(2):
            with CaptureQueriesContext(connection) as context:
                use(connection)
            captured.append([query["sql"] for query in context.captured_queries])
    assert captured[0][1] == "SELECT 1 AS a, 'it''s'"
    assert captured[1:] == [captured[0]] * 3
    assert counted(pooled) == 2 * EXECUTED


def test_the_queries_of_debug_are_those_of_the_stock_backend(
    stock: PooledWrapper, pooled: PooledWrapper, settings_debug: None
) -> None:
    for connection in (stock, pooled):
        connection.queries_log.clear()
        use(connection)
    assert [q["sql"] for q in pooled.queries] == [q["sql"] for q in stock.queries]
    assert all(float(query["time"]) >= 0 for query in pooled.queries)
    assert counted(pooled) == EXECUTED


@pytest.fixture
def settings_debug() -> Iterator[None]:
    with override_settings(DEBUG=True):
        yield


def test_execute_wrappers_see_what_the_stock_backends_see(
    stock: PooledWrapper, pooled: PooledWrapper
) -> None:
    seen: dict[str, list[Any]] = {stock.alias: [], pooled.alias: []}

    def wrap(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        seen[context["connection"].alias].append((sql, params, many))
        return execute(sql, params, many, context)

    for connection in (stock, pooled):
        with connection.execute_wrapper(wrap):
            use(connection)
    assert seen[pooled.alias] == seen[stock.alias]
    assert len(seen[pooled.alias]) == EXECUTED
    assert counted(pooled) == EXECUTED


def test_a_wrapper_that_executes_nothing_or_something_else_decides_what_is_counted(
    pooled: PooledWrapper,
) -> None:
    def refuse(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        raise ZeroDivisionError

    def comment(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        return execute(f"{sql} /* by a wrapper */", params, many, context)

    with ExitStack() as stack:
        cursor = stack.enter_context(pooled.cursor())
        with pooled.execute_wrapper(refuse), pytest.raises(ZeroDivisionError):
            cursor.execute("SELECT 'refused'")
        with pooled.execute_wrapper(comment):
            cursor.execute("SELECT 1 AS a")
    [facts] = pools[pooled.alias].queries.top()
    assert (facts.text, facts.calls) == ("SELECT ? AS a", 1)


# ---- others'

USE = """
from django.db import DatabaseError, transaction
def use(connection):
    with transaction.atomic(connection.alias), connection.cursor() as cursor:
        cursor.execute("SELECT %s AS a, %s", [1, "it's"])
        cursor.execute("SELECT 'literal', 100 %% 7 WHERE 1 = %s", [1])
        cursor.execute("SELECT 1")
        cursor.executemany("SELECT %s::int", [[1], [2]])
        cursor.execute("SELECT %(a)s", {"a": 5})
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / %s", [0])
    except DatabaseError:
        pass
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s AS a, %s", [2, "b"])
def counted(alias):
    from django_psycopg_pooled import pools
    return {facts.text: facts.calls for facts in pools[alias].queries.top(100)}
"""

TOOLBAR = """
from django.apps import apps
settings.STATIC_URL = "/static/"
apps.set_installed_apps(["django.contrib.staticfiles", "debug_toolbar"])
from django.http import HttpResponse
from django.test import RequestFactory
from debug_toolbar.panels.sql import SQLPanel
from debug_toolbar.toolbar import DebugToolbar
seen = {}
for alias in ("stock", "pooled", "prepared"):
    request = RequestFactory().get("/")
    toolbar = DebugToolbar(request, lambda request: HttpResponse())
    panel = toolbar.get_panel_by_id("SQLPanel")
    connections[alias].ensure_connection()
    panel.enable_instrumentation()
    use(connections[alias])
    panel.disable_instrumentation()
    panel.generate_stats(request, HttpResponse())
    queries = panel.get_stats()["queries"]
    seen[alias] = [[q["raw_sql"], q["params"], str(q["trans_status"])] for q in queries]
    assert all(q["alias"] == alias and q["duration"] > 0 for q in queries)
print(json.dumps([seen, counted("pooled"), counted("prepared")]))
connections.close_all()
"""

OPENTELEMETRY = """
import logging
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from django.db.backends.postgresql.psycopg_any import is_psycopg3
if is_psycopg3:
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor as Instrumentor
else:
    from opentelemetry.instrumentation.psycopg2 import Psycopg2Instrumentor as Instrumentor
provider, exporter = TracerProvider(), InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(exporter))
Instrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
seen = {}
for alias in ("stock", "pooled", "prepared"):
    connections[alias].ensure_connection()
    exporter.clear()
    use(connections[alias])
    spans = exporter.get_finished_spans()
    seen[alias] = [[s.name, s.attributes["db.statement"], s.status.is_ok] for s in spans]
print(json.dumps([seen, counted("pooled"), counted("prepared")]))
connections.close_all()
"""


def watched_by(databases: Databases, script: str) -> tuple[dict[str, Any], dict[str, int]]:
    """What the neighbour saw of each alias, and what our two counted: both the same."""
    entries = {
        "default": databases.settings(False),
        "stock": databases.settings(False),
        "pooled": databases.settings({}),
        "prepared": databases.settings(PREPARED),
    }
    done = run_script(USE + script, entries)
    assert done.returncode == 0, done.stderr
    seen, pooled, prepared = json.loads(done.stdout.splitlines()[-1])
    assert pooled == prepared
    return seen, pooled


def assert_counted_once(counts: dict[str, int]) -> None:
    assert sum(counts.values()) == EXECUTED
    assert counts["SELECT %s AS a, %s"] == 2
    assert counts["SELECT %s::int"] == 1


def test_the_debug_toolbars_sql_panel_shows_what_it_shows_of_the_stock_backend(
    databases: Databases,
) -> None:
    require(importlib.util.find_spec("debug_toolbar"), "needs django-debug-toolbar: make .venv")
    seen, counts = watched_by(databases, TOOLBAR)
    assert len(seen["stock"]) == EXECUTED
    assert seen["pooled"] == seen["prepared"] == seen["stock"]
    assert_counted_once(counts)


def test_opentelemetrys_spans_are_those_of_the_stock_backend(databases: Databases) -> None:
    driver = "psycopg" if is_psycopg3 else "psycopg2"
    package = f"opentelemetry.instrumentation.{driver}"
    require(importlib.util.find_spec("opentelemetry.sdk"), f"needs {package}: make .venv")
    seen, counts = watched_by(databases, OPENTELEMETRY)
    assert len(seen["stock"]) >= EXECUTED
    assert seen["pooled"] == seen["prepared"] == seen["stock"]
    assert_counted_once(counts)
