"""uvicorn: sync and async views, and clients that do not wait for the answer. PAINS 3, 5."""

import contextlib
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program, backend_pids
from tests.server.support import eventually

Write = Callable[[dict[str, str]], Path]

MAX_SIZE = 5
ASGI = """
from django.core.asgi import get_asgi_application
application = get_asgi_application()
"""
URLS = """
from asgiref.sync import sync_to_async
from django.db import models
from django.db.models.expressions import RawSQL
from django.http import JsonResponse
from django.urls import path
from project_ask import ask
from project_urls import pool

class Database(models.Model):
    datname = models.TextField(primary_key=True)

    class Meta:
        app_label = "catalogue"
        db_table = "pg_database"
        managed = False

def sleepy(milliseconds):
    slept = RawSQL("SELECT 1 FROM pg_sleep(%s / 1000.0)", [milliseconds])
    return Database.objects.annotate(slept=slept)

def get(milliseconds):
    return sleepy(milliseconds).get(datname="tests")

def in_a_thread(request, tag, milliseconds):
    get(milliseconds)
    return JsonResponse(ask(tag))

async def sync_orm(request, tag, milliseconds):
    await sync_to_async(get)(milliseconds)
    return JsonResponse(await sync_to_async(ask)(tag))

async def async_orm(request, tag, milliseconds):
    await sleepy(milliseconds).aget(datname="tests")
    return JsonResponse(await sync_to_async(ask)(tag))

views = {"thread": in_a_thread, "sync_to_async": sync_orm, "aget": async_orm}
urlpatterns = [path("pool/", pool)]
urlpatterns += [path(f"{name}/<int:tag>/<int:milliseconds>/", views[name]) for name in views]
"""
UVICORN = (
    "-X", "dev", "-m", "uvicorn", "--lifespan=off", "--host=127.0.0.1", "--port={port}",
    "project_asgi:application",
)  # fmt: skip


def assert_answers_twenty_at_once(server: Program, view: str) -> None:
    """A wave of requests that are right, and within the pool's limit."""
    answers = server.get_all([f"/{view}/{tag}/20/" for tag in range(20)], at_once=20)
    assert [answer["tag"] for answer in answers] == list(range(20))
    assert max(answer["backends"] for answer in answers) <= MAX_SIZE


def leave_twenty_requests(server: Program, view: str) -> None:
    """Go away while some wait for the server, which has their statements, and some in the queue."""
    with contextlib.ExitStack() as clients:
        for tag in range(20):
            client = socket.create_connection(("127.0.0.1", server.port))
            clients.callback(client.close)
            client.sendall(f"GET /{view}/{tag}/300/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: waiting(server) == (MAX_SIZE, 20 - MAX_SIZE))


def waiting(server: Program) -> tuple[int, int]:
    """How many requests have a connection, and how many wait for one."""
    facts = server.get("/pool/")
    return facts["lent"], facts["waiting"]


@pytest.fixture
def serve(databases: Databases, script_folder: Write) -> Callable[..., Program]:
    """Makes a uvicorn with MAX_SIZE connections; DATABASES has *more* on top."""

    def make(**more: Any) -> Program:
        settings = PROJECT["project_settings.py"] + "ROOT_URLCONF = 'asgi_urls'\n"
        files = {"project_settings.py": settings, "project_asgi.py": ASGI, "asgi_urls.py": URLS}
        folder = script_folder({**PROJECT, **files})
        entry = databases.settings({"max_size": MAX_SIZE}, **more)
        return Program(folder, *UVICORN, databases={"default": entry})

    return make


@pytest.mark.parametrize("view", ["thread", "sync_to_async", "aget"])
def test_no_connection_stays_lent_after_requests_that_were_answered_or_left(
    databases: Databases, serve: Callable[..., Program], view: str
) -> None:
    """PAINS 3, 5. Three waves of 20 at once, 20 that go away midway, and a wave again."""
    with serve() as server:
        server.wait_until_it_serves()
        for _ in range(3):
            assert_answers_twenty_at_once(server, view)
            eventually(lambda: waiting(server) == (0, 0))
        leave_twenty_requests(server, view)
        eventually(lambda: waiting(server) == (0, 0))
        assert len(backend_pids(databases.server)) <= MAX_SIZE
        assert_answers_twenty_at_once(server, view)
        server.signal(signal.SIGTERM)
        server.end()
        assert "Traceback" not in server.text()
        assert "Warning" not in server.text()
    eventually(lambda: not backend_pids(databases.server))


def test_connections_kept_by_conn_max_age_come_back_from_the_threads_of_past_requests(
    databases: Databases, serve: Callable[..., Program]
) -> None:
    """PAINS 3. Each request has a thread of its own, which ends with the connection it keeps."""
    with serve(CONN_MAX_AGE=60) as server:
        server.wait_until_it_serves()
        for _ in range(3):
            assert_answers_twenty_at_once(server, "thread")
        leave_twenty_requests(server, "thread")
        assert_answers_twenty_at_once(server, "thread")
        assert len(backend_pids(databases.server)) <= MAX_SIZE
        server.signal(signal.SIGTERM)
        server.end()
        assert "Traceback" not in server.text()
    eventually(lambda: not backend_pids(databases.server))
