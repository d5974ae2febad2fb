"""Requests of some statements each, with the tool in place that is to watch them."""

import importlib
import time
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import include, path

from benchmarks.tasks.prepared.models import Person

PEOPLE = 1000
FRAMES = 30  # as deep as the middleware of a project puts a view, for those who walk the stack

View = Callable[[HttpRequest], HttpResponse]
# What puts itself around a view, and how many statements it has seen.
Tool = tuple[Callable[[View], View], Callable[[], int]]


def _without_tool(view: View) -> View:
    return view


_tool: Tool = _without_tool, lambda: 0


def use(tool: str) -> None:
    """Put *tool* in place, for the rest of this process; before it has connected."""
    global _tool
    _tool = {"toolbar": _toolbar, "silk": _silk, "opentelemetry": _opentelemetry}[tool]()


def seen() -> int:
    """How many statements the tool has seen: one that does not work costs nothing."""
    return _tool[1]()


def by_cursor(first: int, statements: int) -> int:
    """Nanoseconds for so many statements without the ORM."""
    sql = Person._default_manager.filter(pk=1).query.sql_with_params()[0]
    began = time.perf_counter_ns()
    for number in range(first, first + statements):
        with connection.cursor() as cursor:
            cursor.execute(sql, (number % PEOPLE + 1,))
            cursor.fetchall()
    return time.perf_counter_ns() - began


def by_request(first: int, statements: int) -> int:
    """Nanoseconds for a request of so many get-by-pk's."""

    def view(request: HttpRequest) -> HttpResponse:
        for number in range(first, first + statements):
            Person._default_manager.get(pk=number % PEOPLE + 1)
        return HttpResponse("")

    request = RequestFactory().get("/people/")
    handler = _tool[0](lambda request: _deep(FRAMES, view, request))
    began = time.perf_counter_ns()
    handler(request)
    return time.perf_counter_ns() - began


def _deep(frames: int, view: View, request: HttpRequest) -> HttpResponse:
    return _deep(frames - 1, view, request) if frames else view(request)


def _toolbar() -> Tool:
    """Its SQL panel alone, as the toolbar's middleware uses it, without rendering a page."""
    override_settings(STATIC_URL="/static/").enable()  # its app asks for it while it is loaded
    override_settings(INSTALLED_APPS=["debug_toolbar"]).enable()
    panels = importlib.import_module("debug_toolbar.panels.sql")
    toolbars = importlib.import_module("debug_toolbar.toolbar")
    total = 0

    def wrap(view: View) -> View:
        def handle(request: HttpRequest) -> HttpResponse:
            nonlocal total
            panel = panels.SQLPanel(toolbars.DebugToolbar(request, view), view)
            panel.enable_instrumentation()
            try:
                response = view(request)
            finally:
                panel.disable_instrumentation()
            panel.generate_stats(request, response)
            total += len(panel._queries)
            return response

        return handle

    return wrap, lambda: total


def _silk() -> Tool:
    """Its middleware, which also saves what it has collected in the database."""
    override_settings(INSTALLED_APPS=["silk"]).enable()
    urls = (path("silk/", include("silk.urls", namespace="silk")),)
    override_settings(ROOT_URLCONF=urls).enable()
    importlib.import_module("django.core.management").call_command("migrate", "silk", verbosity=0)
    middleware = importlib.import_module("silk.middleware").SilkyMiddleware
    query = importlib.import_module("silk.models").SQLQuery
    return middleware, lambda: int(query.objects.count())


def _opentelemetry() -> Tool:
    """The driver's instrumentation, with a tracer that throws its spans away in batches."""
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    total = 0

    class Nowhere(export.SpanExporter):  # type: ignore[misc, name-defined]
        def export(self, spans: Any) -> Any:
            nonlocal total
            total += len(spans)
            return export.SpanExportResult.SUCCESS

    provider = sdk.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(Nowhere()))
    vendor = importlib.import_module("django.db.backends.postgresql.psycopg_any")
    if vendor.is_psycopg3:
        made = importlib.import_module("opentelemetry.instrumentation.psycopg")
        instrumentor = made.PsycopgInstrumentor()
    else:
        made = importlib.import_module("opentelemetry.instrumentation.psycopg2")
        instrumentor = made.Psycopg2Instrumentor()
    instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)

    def count() -> int:
        provider.force_flush()
        return total

    return _without_tool, count
