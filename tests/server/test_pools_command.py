"""manage.py pools beside a running gunicorn: what it shows, what it does, how it ends."""

import contextlib
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from django.test import override_settings

from devtools.postgres import PostgresServer
from django_psycopg_pooled.facts.prepared import PreparedFacts
from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.management.commands.pools import Command
from django_psycopg_pooled.management.fleet import Fleet
from django_psycopg_pooled.management.incidents import incident_lines
from django_psycopg_pooled.management.process import program, project
from django_psycopg_pooled.management.statements import prepared_lines, together
from django_psycopg_pooled.management.status import status_lines, status_result
from django_psycopg_pooled.tables.queries import query_table
from tests.server.databases import Databases
from tests.server.processes import Program, project_environ
from tests.server.support import DATABASE, eventually, require, wrapper
from tests.server.test_blocking import Session
from tests.server.test_control_socket import CONTROLLED

# A view that calls a slow service inside a transaction; another that waits for its row.
SHOP_URLS = """
import os, time
from pathlib import Path
from django.db import connection, transaction
from django_psycopg_pooled import pools
from django_psycopg_pooled.integration.driver import DRIVER
OperationalError = DRIVER.Error
from django.http import JsonResponse
from django.urls import path
from project_urls import pool, tag
release = Path(__file__).parent / "release"

def charge():
    while not release.exists():
        time.sleep(0.01)

def checkout(request):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE stock SET n = n - 1 WHERE id = %s", [1])
        charge()
    return JsonResponse({"pid": os.getpid()})

def refill(request):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE stock SET n = n + 10 WHERE id = %s", [1])
    return JsonResponse({"pid": os.getpid()})

def starve(request):
    leases = [pools["default"].checkout()]  # a test before this may have left none open
    try:
        while True:
            leases.append(pools["default"].checkout(timeout=0))
    except OperationalError as error:
        return JsonResponse({"error": str(error), "pid": os.getpid()})
    finally:
        for lease in leases:
            pools["default"].checkin(lease)

urlpatterns = [
    path("starve/", starve), path("checkout/", checkout), path("refill/", refill),
    path("pool/", pool), path("tag/<int:tag>/", tag),
]
"""
SETTINGS = """
ROOT_URLCONF = "shop_urls"
import sys
if os.environ.get("TEST_WITHOUT_RICH"):
    sys.modules["rich"] = None
"""
GUNICORN = (
    "-m", "gunicorn", "--worker-class=gthread", "--workers=2", "--threads=4",
    "--graceful-timeout=5", "--bind=127.0.0.1:{port}", "project_wsgi",
)  # fmt: skip


class Said(NamedTuple):
    """What a command has printed."""

    stdout: str
    stderr: str


def checked(said: Said, ended: int, code: int, arguments: tuple[str, ...]) -> Said:
    """What is true of every run that is not on a terminal."""
    assert ended == code, said
    assert "Traceback" not in said.stderr
    assert "\x1b" not in said.stdout
    # What somebody looks for is not cut.
    whole = not {"--json", "idle", "incidents", "blocking"}.isdisjoint(arguments)
    assert max(map(len, said.stdout.splitlines() or [""])) <= 80 or whole
    return said


class Shop:
    """A gunicorn with two workers, and manage.py beside it; one for all tests of this module."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.folder = folder
        self.server = server
        self.entry = Databases(server).settings({"max_size": 4, "prepare": "auto"})
        self.gunicorn = Program(folder, *GUNICORN, databases={"default": self.entry})

    @property
    def environ(self) -> dict[str, str]:
        own = project_environ(self.folder, {"default": self.entry})
        return {**os.environ, **own, "COLUMNS": "80", "TERM": "xterm"}

    def pools(self, *arguments: str, code: int = 0) -> Said:
        """Run the command in this process, as the project's; it must end with *code*."""
        out, err, ended = io.StringIO(), io.StringIO(), 0
        with self._here(), contextlib.redirect_stderr(err):
            try:
                command = Command(stdout=out, stderr=err)
                command.run_from_argv(["manage.py", "pools", *arguments])
            except SystemExit as end:
                ended = int(str(end.code))
        return checked(Said(out.getvalue(), err.getvalue()), ended, code, arguments)

    def manage_py(self, *arguments: str, code: int = 0) -> Said:
        """The same in a process of its own, as users start it."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "django", "pools", *arguments],
            cwd=self.folder, env=self.environ, timeout=30,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        return checked(Said(done.stdout, done.stderr), done.returncode, code, arguments)

    @contextmanager
    def _here(self) -> Iterator[None]:
        """This process is one of the project meanwhile."""
        databases = Databases(self.server)
        own = {"DJANGO_SETTINGS_MODULE": "project_settings", "COLUMNS": "80"}
        directory = {"CONTROL_DIR": str(self.folder / "sockets")}
        with mock.patch.dict(os.environ, own), override_settings(DJANGO_PSYCOPG_POOLED=directory):
            databases.configure("default", self.entry)
            project.cache_clear()
            try:
                yield
            finally:
                project.cache_clear()
                wrapper("default").close_pool()
                databases.remove()

    def facts(self, *arguments: str, code: int = 0) -> Any:
        """What it says as JSON."""
        return json.loads(self.pools(*arguments, "--json", code=code).stdout)

    def workers(self) -> list[int]:
        """Process ids of the workers, after both have served."""
        found: set[int] = set()

        def both() -> bool:
            found.update(answer["process"] for answer in self.gunicorn.ask(20, at_once=8))
            return len(found) == 2

        eventually(both)
        return sorted(found)

    @contextmanager
    def request(self, path: str) -> Iterator[None]:
        """Somebody waits for *path* meanwhile."""
        url = f"http://127.0.0.1:{self.gunicorn.port}{path}"
        code = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=60)"
        client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            client.wait(20)

    def psql(self, sql: str) -> list[str]:
        return self.server.psql(sql, DATABASE)

    def server_pids(self) -> set[int]:
        """Of all connections of both workers."""
        found = self.facts("status")["processes"]
        pools = [pool for one in found for pool in one["pools"]]
        return {c["server_pid"] for pool in pools for c in pool["connections"]}


def write_project(folder: Path) -> Path:
    for name, text in {**CONTROLLED, "shop_urls.py": SHOP_URLS}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + SETTINGS if name == "project_settings.py" else text)
    return folder


@pytest.fixture(scope="module")
def shop(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(write_project(tmp_path_factory.mktemp("shop")), server)
    shop.psql("CREATE TABLE stock (id int PRIMARY KEY, n int); INSERT INTO stock VALUES (1, 9)")
    try:
        with shop.gunicorn:
            shop.gunicorn.wait_until_it_serves()
            shop.workers()
            yield shop
    finally:
        shop.psql("DROP TABLE stock")
        eventually(lambda: server.backends() == 0)


@pytest.fixture
def nobody(server: PostgresServer, tmp_path: Path) -> Shop:
    """The same project, none of whose processes runs."""
    return Shop(write_project(tmp_path), server)


@contextmanager
def holding_its_row(shop: Shop) -> Iterator[int]:
    """A request that is idle in its transaction, and another that waits for it."""
    idle = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'"
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    release = shop.folder / "release"
    release.unlink(missing_ok=True)
    with shop.request("/checkout/"):
        try:
            eventually(lambda: shop.psql(idle))
            with shop.request("/refill/"):
                try:
                    eventually(lambda: shop.psql(waits))
                    yield int(shop.psql(idle)[0])
                finally:
                    release.touch()
        finally:
            release.touch()


def test_status_shows_each_workers_pool_and_json_has_all_facts(shop: Shop) -> None:
    workers = shop.workers()
    text = shop.pools().stdout
    header, *rows = text.splitlines()
    assert " ".join(header.split()) == "pid program pool lent idle size waiting longest up"
    assert [int(row.split()[0]) for row in rows] == workers
    assert all("gunicorn" in row and "default" in row and "/4" in row for row in rows)
    assert shop.manage_py().stdout.split()[:9] == text.split()[:9]
    facts = json.loads(shop.manage_py("status", "--settings=project_settings", "--json").stdout)
    assert [one["process"]["pid"] for one in facts["processes"]] == workers
    assert facts["processes"][0]["pools"][0]["max_size"] == 4
    assert facts["errors"] == facts["problems"] == []
    [one] = shop.facts("status", "--pid", str(workers[0]))["processes"]
    assert one["process"]["pid"] == workers[0]


def test_pools_are_resized_in_every_process_and_a_wrong_size_is_told(shop: Shop) -> None:
    try:
        facts = shop.facts("resize", "--min-size", "2", "--max-size", "3")
        sizes = [(p["min_size"], p["max_size"]) for one in facts["processes"] for p in one["pools"]]
        assert sizes == [(2, 3), (2, 3)]
        said = shop.pools("resize", "--max-size", "0", code=2)
        assert said.stdout == ""
        assert said.stderr.splitlines() == [
            f"{'CommandError: ' * (not i)}{pid}: max_size is 0; it must be a whole number of"
            " connections from 1 to 10000."
            for i, pid in enumerate(shop.workers())
        ]
    finally:
        shop.pools("resize", "--min-size", "1", "--max-size", "4")


def test_draining_replaces_every_connection(shop: Shop) -> None:
    before = shop.server_pids()
    shop.pools("drain")
    eventually(lambda: not before & shop.server_pids())


def test_paused_pools_are_something_wrong_until_they_are_resumed(shop: Shop) -> None:
    try:
        assert "! " in shop.pools("pause", "--wait", "5").stdout
        assert "paused; 0 requests wait" in shop.pools("status", code=1).stdout
        with shop.request("/tag/7/"):
            eventually(lambda: "1 request waits" in shop.pools("status", code=1).stdout)
            shop.pools("resume")
    finally:
        shop.pools("resume")


def test_who_is_idle_in_a_transaction_is_named_by_its_lines(shop: Shop) -> None:
    assert "No sessions are idle" in shop.pools("idle").stdout
    with holding_its_row(shop) as pid:
        text = shop.pools("idle", "--older-than", "0", code=1).stdout
        assert f"{pid}  idle in transaction for" in text
        assert "began at: shop_urls.py:" in text
        assert " in checkout" in text
        assert "now at: shop_urls.py:" in text
        assert " in charge" in text
        assert "GET checkout/" in text.replace("GET /checkout/", "GET checkout/")
        [session] = shop.facts("idle", "--older-than", "0", code=1)["sessions"]
        assert (session["pid"], session["ours"]["server_pid"]) == (pid, pid)
        assert "999" in shop.pools("idle", "--older-than", "999").stdout


def test_what_is_idle_is_cut_to_the_terminal_and_whole_where_there_is_none(shop: Shop) -> None:
    session = Session(shop.server)
    name = "a_long_name" * 5
    try:
        session.run(f'SELECT 1 AS "{name}", 2 AS "{name}"')
        eventually(lambda: "idle in" in "".join(shop.psql("SELECT state FROM pg_stat_activity")))
        text = shop.pools("idle", "--older-than", "0", code=1).stdout
        assert f'  last: SELECT ? AS "{name}", ? AS "{name}"\n' in text
        for columns in (60, 100):
            terminal = Terminal(shop, "idle", "--older-than", "0", COLUMNS=str(columns))
            terminal.read_until(b"last: ")
            assert terminal.end() == 1
            lines = terminal.output.decode().splitlines()
            [last] = [line for line in lines if line.startswith("  last: ")]
            assert len(last) == columns
            assert last.endswith("..")
    finally:
        session.close()


@pytest.mark.parametrize("columns", [40, 60])
def test_no_subcommand_writes_longer_lines_than_the_terminal_has(shop: Shop, columns: int) -> None:
    shop.gunicorn.ask(40, at_once=4)
    eventually(lambda: shop.facts("prepared")["prepared"])
    with holding_its_row(shop):
        for what in ("status", "idle", "blocking", "queries", "prepared", "incidents"):
            older = ("--older-than", "0") if what in ("idle", "blocking") else ()
            terminal = Terminal(shop, what, *older, COLUMNS=str(columns), NO_COLOR="1")
            terminal.read_all()
            assert terminal.end() in (0, 1)
            longest = max(terminal.output.decode().splitlines(), key=len)
            assert len(longest) <= columns, (what, longest)


def test_who_blocks_whom_is_whole_where_there_is_no_terminal(shop: Shop) -> None:
    def blocking() -> str:
        return shop.pools("blocking", "--older-than", "99").stdout

    session = Session(shop.server)
    name = "a_long_name" * 5
    try:
        session.run(f'UPDATE stock AS "{name}" SET n = "{name}".n WHERE id = 1')
        with shop.request("/refill/"):
            eventually(lambda: "1 session waits" in blocking())
            text = blocking()
            session.close()
        assert f'last: UPDATE stock AS "{name}" SET n = "{name}".n WHERE id = ?\n' in text
    finally:
        session.close()


def test_who_blocks_whom_is_a_tree_with_lines_and_can_be_ended(shop: Shop) -> None:
    assert "No session waits" in shop.pools("blocking").stdout
    with holding_its_row(shop) as pid:
        text = shop.pools("blocking", "--older-than", "0", code=1).stdout
        assert "1 session waits for locks" in text
        assert "row of stock" in text
        assert "in charge" in text
        assert "in refill" in text
        facts = shop.facts("blocking", "--older-than", "0", code=1)
        assert facts["blocking"][0]["who"] == pid
        assert str(pid) in facts["ours"]
        shop.pools("blocking", "--older-than", "999")

        refused = shop.pools("terminate", str(pid), code=2)
        assert "--yes" in refused.stderr
        shop.pools("terminate", "99999999", "--yes", code=2)
        assert "has ended" in shop.pools("terminate", str(pid), "--yes").stdout
        eventually(lambda: "No session waits" in shop.pools("blocking").stdout)


def test_queries_of_all_processes_are_added_up(shop: Shop) -> None:
    shop.workers()
    [most, *_] = shop.facts("queries", "--by", "calls", "-n", "1")["statements"]
    assert most["calls"] >= 20
    assert "pg_backend_pid()" in most["text"]
    assert "project_ask.py" in most["callers"][0]["text"]
    assert most["percentiles_at_most"] is False
    assert most["min_s"] <= most["p50_s"] <= most["p95_s"] <= most["p99_s"] <= most["max_s"]
    text = shop.pools("queries").stdout
    assert "statements by total_time" in text
    assert "Of 2 processes." in text
    assert "<=" not in text


def test_what_is_prepared_is_told_with_its_figures(shop: Shop) -> None:
    def of_ask() -> list[Any]:
        shop.gunicorn.ask(40, at_once=4)
        found = shop.facts("prepared")["prepared"]
        return [one for one in found if "pg_backend_pid()" in one["text"] and one["hits"]]

    eventually(of_ask)
    assert "hits  connections" in shop.pools("prepared").stdout


def test_what_was_seen_when_a_request_found_no_connection_is_kept(shop: Shop) -> None:
    def timeouts() -> list[Any]:
        found = shop.facts("incidents")["incidents"]
        return [incident for incident in found if incident["kind"] == "pool timeout"]

    assert timeouts() == []
    starved = shop.gunicorn.get("/starve/")
    assert "P101" in starved["error"]
    eventually(timeouts)
    [incident] = timeouts()
    assert incident["process"]["pid"] == starved["pid"]
    text = shop.pools("incidents").stdout
    assert f"pool timeout: process {starved['pid']} gunicorn, pool default" in text
    assert "shop_urls.py" in text


def test_with_nobody_to_ask_it_says_what_it_looked_for_and_where(nobody: Shop) -> None:
    for arguments in ((), ("top",), ("drain", "--alias", "default")):
        said = nobody.pools(*arguments, code=2).stderr
        assert f"{nobody.folder}/sockets: not there" in said
    assert "process 7 " in nobody.pools("status", "--pid", "7", code=2).stderr
    # Where no alias has a pool, no process could have been found.
    nobody.entry["ENGINE"] = "django.db.backends.postgresql"
    nobody.entry["OPTIONS"] = {}
    said = nobody.manage_py(code=2).stderr
    assert "No alias in DATABASES has a pool" in said
    assert "No answer" not in said
    # The server's own view needs nobody.
    assert "sessions are idle" in nobody.pools("idle", "--older-than", "999").stdout


SECONDS = "it must be a number of seconds from 0 to 86400."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("statas", "invalid choice: 'statas'"),
        ("resize", "Give --min-size, --max-size or both."),
        ("resize --max-size x", "'x'"),
        ("terminate", "server_pid"),
        ("terminate 0", "it is '0'; it must be a process id, from 1 to 2147483647."),
        ("top --times 0", "it is '0'; it must be a whole number from 1 to 100000."),
        ("queries -n 1.5", "it is '1.5'; it must be a whole number from 1 to 100000."),
        ("idle --alias nobody", "'nobody' is not in DATABASES"),
        ("idle --older-than -1", f"--older-than: it is '-1'; {SECONDS}"),
        ("pause --wait x", f"--wait: it is 'x'; {SECONDS}"),
        ("top --interval nan", f"--interval: it is 'nan'; {SECONDS}"),
        ("queries --by nothing", "invalid choice: 'nothing'"),
        ("pause --pid 0", "--pid: it is '0'; it must be a process id, from 1 to 2147483647."),
        ("--pid -7", "--pid: it is '-7'; it must be a process id, from 1 to 2147483647."),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        Command().run_from_argv(["manage.py", "pools", *line.split()])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "called"),
    [
        (["/usr/bin/gunicorn", "-w", "2", "shop.wsgi"], "gunicorn"),
        (["gunicorn", "--config=conf.py"], "gunicorn"),
        (["gunicorn", "shop.wsgi:application"], "gunicorn shop.wsgi:application"),
        (["./manage.py", "runserver", "8000"], "manage.py runserver"),
        (["/lib/celery/__main__.py", "-A", "shop", "worker"], "celery"),
        (["run.py", "postgresql://shop:secret@db/shop"], "run.py"),
        (["run.py"], "run.py"),
        ([], ""),
    ],
)
def test_a_process_is_called_as_people_do_without_options(argv: list[str], called: str) -> None:
    assert program(argv) == called


# ---- what the tables make of facts


def pool_facts(**changes: Any) -> dict[str, Any]:
    lent = {"state": "lent", "in_state_s": 41.2}
    facts = {
        "name": "default", "connections": [lent, lent], "max_size": 2, "requests_waiting": 0,
        "paused": False, "last_failure": None, "last_failure_ago_s": None,
    }  # fmt: skip
    return {**facts, **changes}


def fleet_of(*pools: dict[str, Any], errors: dict[int, str] | None = None) -> Fleet:
    process = {"pid": 4711, "program": "gunicorn", "uptime_s": 90.0}
    return Fleet(({"process": process, "pools": list(pools)},), errors or {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"requests_waiting": 7}, "7 requests wait, and all 2 connections are lent."),
        ({"requests_waiting": 1, "max_size": 3}, "1 request waits for connects."),
        ({"paused": True}, "paused; 0 requests wait until manage.py pools resume."),
        (
            {"last_failure": "no route\n to host", "last_failure_ago_s": 3.0},
            "the last connect failed 3.0 s ago: no route to host.",
        ),
    ],
)
def test_what_is_wrong_with_a_pool_is_told_in_a_line_of_its_own(
    changes: dict[str, Any], words: str
) -> None:
    assert status_result(fleet_of(pool_facts()), 80).wrong is False
    result = status_result(fleet_of(pool_facts(**changes)), 80)
    assert result.wrong
    assert result.lines[-1] == f"! 4711 default: {words}"


def test_a_process_that_does_not_answer_is_told_beside_those_that_do() -> None:
    result = status_result(fleet_of(pool_facts(), errors={4712: "no answer within 8 s"}), 80)
    assert result.wrong
    assert "4711" in result.lines[1]
    assert result.lines[-1] == "! 4712: no answer within 8 s."
    refused = status_result(fleet_of(pool_facts(), errors={4712: "max_size is 0; no."}), 80)
    assert refused.lines[-1] == "! 4712: max_size is 0; no."


def test_long_names_are_cut_where_there_is_no_room_and_whole_where_there_is() -> None:
    facts = fleet_of(pool_facts(name="a pool\x1b[2J with a name " * 5))
    narrow, wide = status_lines(facts, 80), status_lines(facts, 300)
    assert max(map(len, narrow)) <= 80
    assert ".." in narrow[1]
    assert ".." not in wide[1]
    assert "\x1b" not in "".join(narrow + wide)
    assert status_lines(facts, None) == wide  # without a terminal
    for width in (1, 9, 40):  # too little even for the numbers
        assert max(map(len, status_lines(facts, width))) == width


def statement(**changes: Any) -> dict[str, Any]:
    figures = {field.name: 0 if field.type in ("int", int) else 0.0 for field in fields(QueryFacts)}
    caller = {"text": "shop/views.py:1 in a", "calls": 2, "share": 1.0}
    texts = {"text": "SELECT %s", "errors_by_sqlstate": {"57014": 1}, "callers": [caller]}
    return {**figures, **texts, "works": [], "new_in_a_later_version": 1, **changes}


def test_two_processes_figures_of_a_statement_become_one() -> None:
    one = statement(calls=2, total_s=4.0, mean_s=2.0, min_s=1.0, max_s=3.0, p95_s=2.5)
    other = statement(calls=6, total_s=6.0, mean_s=1.0, min_s=0.5, max_s=9.0, p95_s=2.0)
    [facts], at_most = together([one, other], "total_time", 5)
    assert at_most == {facts.text}  # neither has told its durations
    assert (facts.calls, facts.total_s, facts.mean_s) == (8, 10.0, 1.25)
    assert (facts.min_s, facts.max_s, facts.p95_s) == (0.5, 9.0, 2.5)
    assert facts.errors_by_sqlstate == {"57014": 2}
    [caller] = facts.callers
    assert (caller.calls, caller.share) == (4, 0.5)


def test_the_statements_that_have_most_come_first() -> None:
    frequent = statement(text="a", calls=9, total_s=1.0)
    costly = statement(text="b", calls=1, total_s=9.0)
    for by, text in (("calls", "a"), ("total_time", "b")):
        [most], at_most = together([frequent, costly], by, 1)
        assert (most.text, at_most) == (text, frozenset())


def test_prepared_statements_are_told_with_reasons_in_80_columns() -> None:
    facts = PreparedFacts(
        text='SELECT "shop_order"."id", ' * 20, name="orders", state="denied", sqlstate="0A000",
        reason="cached plan must not change result type, and some more words to fill the line",
        variants=1, hits=8120, connections=4, plain_mean_s=0.0102, prepared_mean_s=None,
        since_s=3.0,
    )  # fmt: skip
    assert "No statement is prepared" in prepared_lines([], 80)[0]
    lines = prepared_lines([facts], 80)
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["denied", "8,120", "4", "10.2", "ms"]
    assert "(0A000)" in " ".join(lines)
    assert lines[3].endswith(" ..")  # there is more of the text
    assert lines[4].startswith("  because")
    whole = prepared_lines([facts], None)
    assert f"orders: {facts.text.strip()} because" in "".join(line[1:] for line in whole)


def test_two_lines_of_a_statement_fit_the_terminal_and_all_are_told_where_there_is_none() -> None:
    told = statement(text="SELECT " + "word " * 60, calls=2)
    [facts], _ = together([told], "calls", 1)
    for width in (40, 60):
        lines = query_table("shop", "calls", 9.0, [facts], width=width).splitlines()[4:6]
        assert max(map(len, lines)) <= width
        assert lines[1].endswith(" ...")
    text = query_table("shop", "calls", 9.0, [facts], width=None)
    assert text.count("word") == 60
    assert "..." not in text


def test_nothing_that_went_wrong_is_told_in_words() -> None:
    assert incident_lines([], 80) == ["Nothing has gone wrong since these processes began."]


# ---- top


class Terminal:
    """manage.py pools on a terminal of 80 columns and 24 lines."""

    def __init__(self, shop: Shop, *arguments: str, **environ: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", "pools", *arguments],
            cwd=shop.folder, env={**shop.environ, **environ},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            # Shells have what they start in the background ignore it, and all that this starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def read_until(self, text: bytes, times: int = 1) -> None:
        deadline = time.monotonic() + 15
        while self.output.count(text) < times:
            assert time.monotonic() < deadline, self.output
            if select.select([self._master], [], [], 0.1)[0]:
                self.output += os.read(self._master, 4096)

    def read_all(self) -> None:
        """Until the process has ended."""
        deadline = time.monotonic() + 15
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.output
            if select.select([self._master], [], [], 0.1)[0]:
                self.output += os.read(self._master, 4096)

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def end(self) -> int:
        try:
            code = self.process.wait(10)
        finally:
            self.process.kill()
        while select.select([self._master], [], [], 0)[0]:
            self.output += os.read(self._master, 4096)
        assert termios.tcgetattr(self._slave) == self.before
        os.close(self._master)
        os.close(self._slave)
        return code


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
@pytest.mark.parametrize("how", ["q", "Ctrl-C", "SIGTERM"])
def test_top_is_drawn_anew_and_leaves_the_terminal_as_it_was(
    shop: Shop, how: str, rich: bool
) -> None:
    if rich:
        require(find_spec("rich"), "rich is missing: 'pip install rich' brings it.")
    with holding_its_row(shop):
        terminal = Terminal(shop, "top", "--interval", "0.1", TEST_WITHOUT_RICH="" if rich else "1")
        terminal.read_until(b"Longest loans first", 3)
        terminal.read_until(b" in charge")
        if how == "q":
            terminal.type(b"q")
        elif how == "Ctrl-C":
            terminal.process.send_signal(signal.SIGINT)
        else:
            terminal.process.terminate()
        assert terminal.end() == (143 if how == "SIGTERM" else 0)
        alternate = terminal.output.count(b"\x1b[?1049h")
        assert alternate == terminal.output.count(b"\x1b[?1049l") == int(rich)
        assert b"Traceback" not in terminal.output


def test_top_without_a_terminal_is_one_frame_or_lines_of_json(shop: Shop) -> None:
    text = shop.pools("top").stdout
    assert text.count("Longest loans first") == 1
    done = shop.pools("top", "--json", "--times", "2", "--interval", "0.1")
    assert [len(json.loads(line)["processes"]) for line in done.stdout.splitlines()] == [2, 2]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_for_terminals_only_and_never_the_only_sign(shop: Shop, no_color: str) -> None:
    shop.pools("pause")
    try:
        terminal = Terminal(shop, "status", NO_COLOR=no_color)
        terminal.read_until(b"paused", 2)
        assert terminal.end() == 1
    finally:
        shop.pools("resume")
    assert (b"\x1b[" in terminal.output) == (not no_color)
    assert b"! " in terminal.output


def test_ending_a_session_is_asked_for_on_a_terminal(shop: Shop) -> None:
    with holding_its_row(shop) as pid:
        for answer, words, code in ((b"n\n", b"Nothing was done", 1), (b"y\n", b"has ended", 0)):
            terminal = Terminal(shop, "terminate", str(pid))
            terminal.read_until(b"End this session? [y/N]")
            assert b"in charge" in terminal.output
            terminal.type(answer)
            terminal.read_until(words)
            assert terminal.end() == code
