"""Greenlets in the place of threads share the pool, and may be killed anywhere. PAINS 5, 16."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program, backend_pids
from tests.server.support import PREAMBLE, eventually

Write = Callable[[dict[str, str]], Path]

# psycopg 3 sees that select is patched. psycopg2 is told how to wait, as its documentation and
# gevent's have it. Source: psycogreen.
GREEN = """
try:
    import psycopg
except ImportError:
    from gevent.socket import wait_read, wait_write
    from psycopg2 import extensions
    def wait(connection):
        while (state := connection.poll()) != extensions.POLL_OK:
            if state == extensions.POLL_READ:
                wait_read(connection.fileno())
            else:
                wait_write(connection.fileno())
    extensions.set_wait_callback(wait)
"""
SLEEPY_URLS = """
from django.http import JsonResponse
from django.urls import path
from django.db import connection
from project_urls import pool, tag

def sleep(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid() FROM pg_sleep(0.05)")
        return JsonResponse({"backend": cursor.fetchone()[0]})

urlpatterns = [path("sleep/", sleep), path("pool/", pool), path("tag/<int:tag>/", tag)]
"""
GUNICORN = (
    "-m", "gunicorn", "--worker-class=gevent", "--workers=1", "--graceful-timeout=5",
    "--bind=127.0.0.1:{port}", "project_wsgi",
)  # fmt: skip


def test_requests_under_gevent_wait_side_by_side_for_ten_connections(
    databases: Databases, script_folder: Write
) -> None:
    """PAINS 16. 60 sleeps of 50 ms at once, which are 3 s one after the other; then 200 tags."""
    folder = script_folder(
        {
            **PROJECT,
            "project_wsgi.py": GREEN + PROJECT["project_wsgi.py"],
            "project_settings.py": PROJECT["project_settings.py"] + "ROOT_URLCONF = 'sleepy'\n",
            "sleepy.py": SLEEPY_URLS,
        }
    )
    with Program(folder, *GUNICORN, databases={"default": databases.settings()}) as gunicorn:
        gunicorn.wait_until_it_serves()
        began = time.monotonic()
        answers = gunicorn.get_all(["/sleep/"] * 60, at_once=60)
        took = time.monotonic() - began
        assert took < 2.5
        assert 2 <= len({answer["backend"] for answer in answers}) <= 10
        assert max(answer["backends"] for answer in gunicorn.ask(200, at_once=30)) <= 10
        facts = gunicorn.get("/pool/")
        assert facts["lent"] == 0
        assert facts["size"] <= 10
        gunicorn.signal(signal.SIGTERM)
        assert gunicorn.end() == 0
        assert "Traceback" not in gunicorn.text()
    eventually(lambda: not backend_pids(databases.server))


GREENLETS = (
    """
from gevent import monkey
monkey.patch_all()
import gevent, os
from gevent.event import Event
"""
    + GREEN
    + PREAMBLE
    + """
from tests.server.support import eventually
pool = connection.pool
def ask(sql="SELECT 1"):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]
def request(sql="SELECT 1"):
    try:
        return ask(sql)
    finally:
        connection.close()
def waiting():
    return pool.get_stats()["requests_waiting"]
def states():
    return sorted(c.state for c in pool.snapshot().connections)
def assert_whole():
    # All slots can be lent at once, and none is taken by a connection that is lost.
    eventually(lambda: states().count("lent") == 0)
    eventually(lambda: set(states()) <= {"idle"})
    release = Event()
    def borrow():
        try:
            ask()
            release.wait(20)
        finally:
            connection.close()
    all_of_them = [gevent.spawn(borrow) for _ in range(3)]
    eventually(lambda: states() == ["lent"] * 3)
    release.set()
    gevent.joinall(all_of_them, raise_error=True)
    assert states() == ["idle"] * 3, states()
    assert waiting() == 0
def held():
    # Three greenlets hold the three connections until the event is set.
    done = Event()
    def hold():
        try:
            ask()
            done.wait(20)
        finally:
            connection.close()
    holders = [gevent.spawn(hold) for _ in range(3)]
    eventually(lambda: states() == ["lent"] * 3)
    return done, holders
"""
)
CLOSED = "pool 'default': a connection was given back in the middle of a statement; it is closed"
STORIES = {
    "GreenletExit in the queue": """
done, holders = held()
waiters = [gevent.spawn(request) for _ in range(20)]
eventually(lambda: waiting() == 20)
gevent.killall(waiters)
assert waiting() == 0
done.set()
gevent.joinall(holders, raise_error=True)
assert_whole()
""",
    "GreenletExit just as it is served": """
for _ in range(30):
    done, holders = held()
    waiters = [gevent.spawn(request) for _ in range(3)]
    eventually(lambda: waiting() == 3)
    done.set()
    gevent.killall(waiters, block=False)
    gevent.joinall([*holders, *waiters], timeout=10)
    assert states().count("lent") == 0, states()
assert_whole()
""",
    "Timeout in the queue": """
done, holders = held()
def impatient():
    try:
        with gevent.Timeout(0.05):
            request()
    except gevent.Timeout:
        return "gave up"
waiters = [gevent.spawn(impatient) for _ in range(20)]
gevent.joinall(waiters, raise_error=True)
assert [w.value for w in waiters] == ["gave up"] * 20
assert waiting() == 0
done.set()
gevent.joinall(holders, raise_error=True)
assert_whole()
""",
    "GreenletExit in a statement": """
for _ in range(3):
    sleepers = [gevent.spawn(request, "SELECT 1 FROM pg_sleep(1)") for _ in range(3)]
    eventually(lambda: states() == ["lent"] * 3)
    gevent.sleep(0.02)
    gevent.killall(sleepers)
    assert_whole()
""",
    "Timeout in a statement": """
def impatient():
    try:
        with gevent.Timeout(0.05):
            request("SELECT 1 FROM pg_sleep(1)")
    except gevent.Timeout:
        return "gave up"
sleepers = [gevent.spawn(impatient) for _ in range(9)]
gevent.joinall(sleepers, raise_error=True)
assert [s.value for s in sleepers] == ["gave up"] * 9
assert_whole()
""",
    "GreenletExit in a connect": """
for _ in range(20):
    pool.drain()
    openers = [gevent.spawn(request) for _ in range(3)]
    eventually(lambda: "opening" in states() or "lent" in states())
    gevent.killall(openers)
assert_whole()
""",
}


@pytest.mark.parametrize(
    ("story", "num_workers"),
    [
        *((story, 3) for story in STORIES),
        # Without threads of the pool's own, requests connect by themselves.
        *((story, 0) for story in STORIES if story.startswith("GreenletExit")),
    ],
)
def test_a_killed_greenlet_takes_no_connection_along(
    databases: Databases, script_folder: Write, story: str, num_workers: int
) -> None:
    """PAINS 5. Killed in the queue, in a connect, or while it holds a connection."""
    folder = script_folder({"story.py": GREENLETS + STORIES[story]})
    entry = databases.settings({"max_size": 3, "num_workers": num_workers})
    with Program(folder, "story.py", databases={"default": entry}) as program:
        assert program.end() == 0
        # What was killed in the midst of a statement is of no use to anybody else.
        said = set(program.text().splitlines())
        assert said <= ({CLOSED} if "statement" in story else set())
    eventually(lambda: not backend_pids(databases.server))


LEFT = """
def borrow_for_good():
    ask()
    borrowed.append(1)
    gevent.sleep(20)
for number in range(1, 6):
    borrowed = []
    leaving = [gevent.spawn(borrow_for_good) for _ in range(3)]
    eventually(lambda: len(borrowed) == 3)
    gevent.killall(leaving)
    with gevent.Timeout(5):
        assert gevent.spawn(request, "SELECT 2").get() == 2
assert_whole()
assert pool.get_stats()["reclaimed"] == 15
"""


@pytest.mark.parametrize("num_workers", [3, 0])
def test_what_a_killed_greenlet_never_gave_back_is_reclaimed_and_said_once(
    databases: Databases, script_folder: Write, num_workers: int
) -> None:
    """PAINS 4, 5. Without the close() that Django does at the end of a request."""
    folder = script_folder({"story.py": GREENLETS + LEFT})
    entry = databases.settings({"max_size": 3, "num_workers": num_workers})
    with Program(folder, "story.py", databases={"default": entry}) as program:
        assert program.end() == 0
        assert program.text().count("never given back") == 1
        assert " in borrow_for_good" in program.text()
    eventually(lambda: not backend_pids(databases.server))


KILLED = """
for _ in range(3):
    sleepers = [gevent.spawn(request, "SELECT 1 FROM pg_sleep(5)") for _ in range(3)]
    eventually(lambda: states() == ["lent"] * 3)
    gevent.sleep(0.2)
    gevent.killall(sleepers)
    eventually(lambda: "lent" not in states())
print(request("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"))
"""


def test_the_server_never_has_more_than_max_size_though_statements_are_killed(
    databases: Databases, script_folder: Write
) -> None:
    """PAINS 5, 16. A slot must not be free while the server still works for its connection."""
    folder = script_folder({"story.py": GREENLETS + KILLED})
    with Program(
        folder, "story.py", databases={"default": databases.settings({"max_size": 3})}
    ) as p:
        assert p.end() == 0
        assert int(p.text().split()[-1]) <= 3


SILENT = """
import signal, time
request()
sleeper = gevent.spawn(request, "SELECT 1 FROM pg_sleep(60)")
eventually(lambda: "lent" in states())
gevent.sleep(0.2)
beats = []
def beat():
    while True:
        beats.append(time.monotonic())
        gevent.sleep(0.01)
heart = gevent.spawn(beat)
os.kill({postmaster}, signal.SIGSTOP)
try:
    sleeper.kill()
    beats.append(time.monotonic())
finally:
    os.kill({postmaster}, signal.SIGCONT)
heart.kill()
print(beats[-1] - beats[0], max(b - a for a, b in zip(beats, beats[1:])))
sleeping = " FROM pg_stat_activity WHERE query LIKE '%(60)'"
if DRIVER.name == "psycopg":
    request("SELECT count(pg_terminate_backend(pid))" + sleeping)
eventually(lambda: request("SELECT count(*)" + sleeping) == 0)
"""


def test_a_server_that_takes_no_cancel_blocks_no_other_greenlet(
    databases: Databases, script_folder: Write
) -> None:
    """And the killed one for a second. psycopg 3 gives the cancel up then, psycopg2 cannot."""
    postmaster = databases.server.pid
    folder = script_folder({"story.py": GREENLETS + SILENT.format(postmaster=postmaster)})
    entry = databases.settings({"max_size": 3})
    try:
        with Program(folder, "story.py", databases={"default": entry}) as program:
            assert program.end() == 0
            took, longest_pause = map(float, program.text().split()[-2:])
    finally:
        os.kill(postmaster, signal.SIGCONT)  # else nothing after this test would end
    assert 0.9 < took < 5
    assert longest_pause < 0.8 * took
