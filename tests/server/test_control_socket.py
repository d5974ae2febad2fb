"""The control sockets of real processes: found, answered on, and gone with them."""

import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_psycopg_pooled.control.client import Replies, ask_all
from django_psycopg_pooled.control.places import sockets
from django_psycopg_pooled.control.protocol import Request
from django_psycopg_pooled.control.service import Service
from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program
from tests.server.support import eventually
from tests.server.test_celery import TASKS, WORKER, answered

Write = Callable[[dict[str, str]], Path]

# CONTROL_DIR below the test's own folder.
CONTROLLED = {
    **PROJECT,
    "project_settings.py": PROJECT["project_settings.py"]
    + """
from pathlib import Path
INSTALLED_APPS = ["django_psycopg_pooled"]
OWN = str(Path(__file__).parent / "sockets")
DJANGO_PSYCOPG_POOLED = {"CONTROL_DIR": os.environ.get("TEST_CONTROL_DIR", OWN)}
""",
}
SCRIPT = """
import django, os, signal, sys, time, threading
django.setup()
from django.db import connection
from tests.server.support import eventually
from pathlib import Path
sockets = Path(__file__).parent / "sockets"
def own():
    return list(sockets.glob(f"{os.getpid()}-*.sock"))
def query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
def listen():
    query()
    eventually(own)
"""
# What the test must know to be answered.
KNOWN = """
from pathlib import Path
from django_psycopg_pooled.management.process import project
(Path(__file__).parent / "project").write_text(project())
"""
STAY = "listen()\nprint('here', flush=True)\ntime.sleep(60)\n"


def ask(folder: Path, what: str = "status", project: str | None = None, **args: Any) -> Replies:
    """What the processes with sockets in *folder*/sockets say, whatever their project is."""
    request = Request(what, args, project or project_of(folder))
    return ask_all([folder / "sockets"], request)


def project_of(folder: Path) -> str:
    return (folder / "project").read_text()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "sockets").glob("*"))


def program(databases: Databases, folder: Path, code: str, *flags: str, **environ: str) -> Program:
    """SCRIPT and *code* as a program of the project in *folder*; writes down what project it is."""
    name = f"script{len(list(folder.iterdir()))}.py"
    (folder / name).write_text(SCRIPT + KNOWN + code)
    return Program(
        folder, *flags, name, databases={"default": databases.settings()}, environ=environ
    )


@pytest.fixture
def folder(script_folder: Write) -> Path:
    return script_folder(CONTROLLED)


def test_a_process_answers_from_its_first_connection_on(databases: Databases, folder: Path) -> None:
    with program(databases, folder, "assert not sockets.exists()\n" + STAY) as running:
        running.wait_for("here")
        [reply] = ask(folder).replies
        facts = reply.answer["process"]
        assert facts["pid"] == reply.pid
        assert facts["program"].startswith("script")
        assert 0 < facts["uptime_s"] < 60
        [pool] = reply.answer["pools"]
        assert (pool["name"], len(pool["connections"])) == ("default", 1)
        directory = folder / "sockets"
        [(_, path)] = sockets(directory)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_end_of_the_interpreter_removes_the_socket_at_once_and_in_silence(
    databases: Databases, folder: Path
) -> None:
    code = "listen()\nprint(time.time(), flush=True)\nsys.exit(3)\n"
    with program(databases, folder, code, "-X", "dev", "-W", "error") as ending:
        assert ending.end() == 3
        ended = time.time()
        assert ended - float(ending.text()) < 1.0
    assert files(folder) == []


def test_a_process_that_ends_while_it_makes_its_socket_leaves_none(
    databases: Databases, folder: Path
) -> None:
    code = """
bound = threading.Event()
def slowly(path, mode, chmod=Path.chmod):
    bound.set()
    time.sleep(0.02)
    chmod(path, mode)
Path.chmod = slowly
query()
assert bound.wait(10)
"""
    with program(databases, folder, code, "-X", "dev", "-W", "error") as short:
        assert short.end() == 0
        assert short.text() == ""
    assert (folder / "sockets").is_dir()
    assert files(folder) == []


def test_a_process_without_a_connection_or_with_control_dir_none_has_no_thread_for_it(
    databases: Databases, folder: Path
) -> None:
    count = "print(sum(t.name == 'pool-control' for t in threading.enumerate()))\n"
    with program(databases, folder, count) as idle:
        assert idle.end() == 0
        assert idle.text() == "0\n"
    settings = folder / "project_settings.py"
    settings.write_text(settings.read_text() + "DJANGO_PSYCOPG_POOLED = {'CONTROL_DIR': None}\n")
    with program(databases, folder, "query()\n" + count) as off:
        assert off.end() == 0
        assert off.text() == "0\n"
    assert files(folder) == []


def test_what_a_killed_process_left_is_removed_by_whoever_asks(
    databases: Databases, folder: Path
) -> None:
    with program(databases, folder, STAY) as killed:
        killed.wait_for("here")
    assert len(files(folder)) == 1
    assert ask(folder).replies == ()
    assert files(folder) == []


def test_what_a_killed_process_left_is_removed_by_the_next_that_listens(
    databases: Databases, folder: Path
) -> None:
    with program(databases, folder, STAY) as killed:
        killed.wait_for("here")
    [left] = files(folder)
    with program(databases, folder, STAY) as running:
        running.wait_for("here")
        assert left not in files(folder)
        assert len(files(folder)) == 1


FORK = """
listen()
[path] = own()
child = os.fork()
if not child:
    # Nothing of the parent's is here; another socket comes with the first connection.
    assert "pool-control" not in {t.name for t in threading.enumerate()}
    assert not own()
    listen()
    print("child", flush=True)
    time.sleep(60)
connection.close()
from django_psycopg_pooled import pools
pools["default"].drain()
listen()
print("parent", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("flags", [(), ("-X", "dev", "-W", "error")], ids=str)
def test_a_forked_child_answers_for_itself_and_its_parent_from_its_next_connect(
    databases: Databases, folder: Path, flags: tuple[str, ...]
) -> None:
    """Python 3.12 warns of a fork() beside threads: ours has ended before."""
    with program(databases, folder, FORK, *flags) as family:
        family.wait_for("child")
        family.wait_for("parent")
        first, second = ask(folder).replies
        assert {first.pid, second.pid} == {
            first.answer["process"]["pid"], second.answer["process"]["pid"],
        }  # fmt: skip
        # Pools of their own: neither has the other's connection.
        ours, theirs = (
            {c["server_pid"] for p in reply.answer["pools"] for c in p["connections"]}
            for reply in (first, second)
        )
        assert not ours & theirs
        assert "Warning" not in family.text()


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent
"""


def test_a_greenlet_answers_where_threads_are_greenlets(databases: Databases, folder: Path) -> None:
    stay = "listen()\nprint('here', flush=True)\ngevent.sleep(60)\n"
    (folder / "green.py").write_text(GEVENT + SCRIPT + KNOWN + stay)
    with Program(folder, "green.py", databases={"default": databases.settings()}) as running:
        running.wait_for("here")
        began = time.monotonic()
        [reply] = ask(folder).replies
        assert reply.error is None
        assert time.monotonic() - began < 5


def test_processes_of_another_project_do_not_answer(databases: Databases, folder: Path) -> None:
    with program(databases, folder, STAY) as running:
        running.wait_for("here")
        replies = ask(folder, "drain", project="another")
        assert (replies.replies, replies.others) == ((), 1)
        assert len(ask(folder).replies) == 1


def test_one_process_alone_can_be_asked_and_0_is_none(databases: Databases, folder: Path) -> None:
    with program(databases, folder, STAY) as running:
        running.wait_for("here")
        [pid] = [reply.pid for reply in ask(folder).replies]
        request = Request("drain", {}, project_of(folder))
        found = [ask_all([folder / "sockets"], request, pid=p).replies for p in (pid, 0)]
        assert [len(replies) for replies in found] == [1, 0]


# ---- clients that are no friends


def connected(folder: Path) -> socket.socket:
    [(_, path)] = sockets(folder / "sockets")
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    return client


def test_clients_that_send_nonsense_or_too_much_are_refused_and_the_next_is_answered(
    databases: Databases, folder: Path
) -> None:
    with program(databases, folder, STAY) as running:
        running.wait_for("here")
        for sent in (b"\x00\xff\n", b"{}\n", b'{"v": 1, "ask": "x"\n', b"\n"):
            with connected(folder) as client:
                client.sendall(sent)
                assert json.loads(client.makefile().readline())["ok"] is False
        with connected(folder) as client, pytest.raises(OSError, match=r"Broken pipe|reset"):
            client.sendall(b"x" * 100_000_000)
        with connected(folder) as client:
            client.sendall(b"half a line")
        [reply] = ask(folder).replies
        assert reply.error is None
        assert "Traceback" not in running.text()


def test_clients_that_say_nothing_hold_up_others_for_seconds_only(
    databases: Databases, folder: Path
) -> None:
    with program(databases, folder, STAY) as running:
        running.wait_for("here")
        began = time.monotonic()
        with connected(folder):
            [reply] = ask(folder).replies
        assert reply.error is None
        assert time.monotonic() - began < 5


def test_a_client_that_does_not_read_a_long_answer_holds_up_others_for_seconds_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_psycopg_pooled.control.service.WRITE_S", 0.3)
    (tmp_path / "sockets").mkdir(mode=0o700)
    service = Service((tmp_path / "sockets",), lambda line: line * 1_000_000 + b"\n")
    service.start()
    try:
        eventually(lambda: sockets(tmp_path / "sockets"))
        with connected(tmp_path) as deaf, connected(tmp_path) as other:
            deaf.sendall(b"eight...\n")
            other.sendall(b"eight...\n")
            other.settimeout(5)
            assert len(other.makefile("rb").readline()) == 8_000_001
    finally:
        assert service.stop(5)
    assert files(tmp_path) == []


def test_a_socket_is_found_when_somebody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sockets").mkdir(mode=0o700)
    listen = socket.socket.listen

    def listen_late(listening: socket.socket) -> None:
        time.sleep(0.2)
        listen(listening)

    monkeypatch.setattr("socket.socket.listen", listen_late)
    service = Service((tmp_path / "sockets",), lambda line: line + b"\n")
    service.start()
    try:
        eventually(lambda: sockets(tmp_path / "sockets"))
        with connected(tmp_path) as client:
            client.sendall(b"here\n")
            assert client.recv(100) == b"here\n"
    finally:
        assert service.stop(5)
    assert files(tmp_path) == []


def test_a_process_that_is_stopped_is_told_as_an_error_and_not_removed(
    databases: Databases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_psycopg_pooled.control.client.PATIENCE_S", 0.2)
    with program(databases, folder, STAY) as running:
        running.wait_for("here")
        [pid] = [reply.pid for reply in ask(folder).replies]
        running.signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        [reply] = ask(folder).replies
        assert reply.error == "no answer within 0.2 s"
        running.signal(signal.SIGCONT)
        eventually(lambda: ask(folder).replies[0].error is None)


# ---- places where no socket can be


def only_warns(databases: Databases, folder: Path, words: str, **environ: str) -> None:
    """A program serves its queries, and says *words* once."""
    code = """
query()
eventually(lambda: not [t for t in threading.enumerate() if t.name == "pool-control"])
connection.close()
from django_psycopg_pooled import pools
pools["default"].drain()
query()
print("served", flush=True)
"""
    with program(databases, folder, code, "-X", "dev", "-W", "error", **environ) as p:
        assert p.end() == 0
        assert p.text().count("nobody can look at this process's pools") == 1
        assert words in p.text()
        assert "served" in p.text()
        assert "Traceback" not in p.text()


def test_a_path_that_is_too_long_for_a_socket_is_one_warning(
    databases: Databases, folder: Path
) -> None:
    only_warns(databases, folder, "too long", TEST_CONTROL_DIR=str(folder / ("x" * 120)))


def test_a_directory_that_cannot_be_made_is_one_warning(databases: Databases, folder: Path) -> None:
    (folder / "file").touch()
    only_warns(databases, folder, "Not a directory", TEST_CONTROL_DIR=str(folder / "file" / "in"))


def test_a_directory_that_others_can_write_is_one_warning(
    databases: Databases, folder: Path
) -> None:
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    only_warns(databases, folder, "can be written by others", TEST_CONTROL_DIR=str(shared))
    assert list(shared.iterdir()) == []


def test_a_forked_child_of_a_process_that_could_not_listen_does_not_warn_again(
    databases: Databases, folder: Path
) -> None:
    (folder / "file").touch()
    code = """
query()
eventually(lambda: not [t for t in threading.enumerate() if t.name == "pool-control"])
child = os.fork()
query()
if child:
    os.waitpid(child, 0)
"""
    place = str(folder / "file")
    with program(databases, folder, code, TEST_CONTROL_DIR=place) as family:
        assert family.end() == 0
        assert family.text().count("nobody can look") == 1


# ---- gunicorn


def test_each_worker_of_gunicorn_answers_and_the_master_does_not(
    databases: Databases, folder: Path
) -> None:
    arguments = (
        "-m", "gunicorn", "--preload", "--worker-class=gthread", "--workers=2", "--threads=2",
        "--graceful-timeout=5", "--bind=127.0.0.1:{port}", "project_wsgi",
    )  # fmt: skip
    wsgi = folder / "project_wsgi.py"
    wsgi.write_text(wsgi.read_text() + KNOWN)
    with Program(folder, *arguments, databases={"default": databases.settings()}) as gunicorn:
        gunicorn.wait_until_it_serves()
        workers: set[int] = set()

        def both_served() -> bool:
            workers.update(answer["process"] for answer in gunicorn.ask(20, at_once=4))
            return len(workers) == 2

        eventually(both_served)
        eventually(lambda: {reply.pid for reply in ask(folder).replies} == workers)
        assert {r.answer["process"]["program"].split()[0] for r in ask(folder).replies} == {
            "gunicorn"
        }
        # Bounds hold in each process alone.
        [one] = ask_all(
            [folder / "sockets"],
            Request("configure", {"options": {"max_size": 3}}, project_of(folder)),
            pid=min(workers),
        ).replies
        assert one.answer["pools"][0]["max_size"] == 3
        sizes = {r.pid: r.answer["pools"][0]["max_size"] for r in ask(folder).replies}
        assert sizes == {min(workers): 3, max(workers): 10}
        os.kill(max(workers), signal.SIGKILL)
        gunicorn.signal(signal.SIGTERM)
        assert gunicorn.end() == 0
    assert ask(folder).replies == ()
    assert files(folder) == []


# ---- other programs


def test_of_runserver_the_process_that_serves_answers(databases: Databases, folder: Path) -> None:
    """And not the one that reloads it, which uses no database."""
    urls = folder / "project_urls.py"
    urls.write_text(urls.read_text() + KNOWN)
    settings = {"default": databases.settings()}
    arguments = ("-m", "django", "runserver", "127.0.0.1:{port}")
    with Program(folder, *arguments, databases=settings) as runserver:
        runserver.wait_until_it_serves()
        served_by = runserver.ask(1, at_once=1)[0]["process"]
        eventually(lambda: [reply.pid for reply in ask(folder).replies] == [served_by])
        [reply] = ask(folder).replies
        assert reply.answer["process"]["program"] == "django runserver"


def test_a_celery_workers_children_answer_and_leave_nothing_to_be_found(
    databases: Databases, folder: Path
) -> None:
    tasks = TASKS.replace("worker_max_tasks_per_child=1,", "") + KNOWN
    (folder / "tasks.py").write_text(tasks)
    setup = {"default": databases.settings()}
    with Program(folder, *WORKER, databases=setup) as worker:
        worker.wait_for(" ready.")
        with Program(folder, "tasks.py", "9", databases=setup) as client:
            assert client.end() == 0
        eventually(lambda: len(answered(folder)) == 9, 60)
        children = {json.loads(path.read_text())["process"] for path in answered(folder)}
        eventually(lambda: children <= {reply.pid for reply in ask(folder).replies})
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0
        assert "Traceback" not in worker.text()
    assert ask(folder).replies == ()
    assert files(folder) == []
