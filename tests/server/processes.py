"""Programs that users start, as processes of one test, and the Django project that they run."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devtools.postgres import PostgresServer, free_port
from tests.server.support import ROOT, eventually

SETTINGS = """
import json, os
DATABASES = json.loads(os.environ["TEST_DATABASES"])
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django_psycopg_pooled"]
ROOT_URLCONF = "project_urls"
USE_TZ = True
"""
# ask(n): n as the server sends it back, who answered, and how many backends there were.
ASK = """
import os
from django.db import connection
SQL = '''SELECT %s, pg_backend_pid(), (SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database())'''
def ask(tag):
    with connection.cursor() as cursor:
        cursor.execute(SQL, [tag])
        answer, backend, backends = cursor.fetchone()
    return {"tag": int(answer), "backend": backend, "backends": backends, "process": os.getpid()}
"""
URLS = """
from django.http import JsonResponse
from django.urls import path
from django_psycopg_pooled import pools
from project_ask import ask

def tag(request, tag):
    return JsonResponse(ask(tag))

def pool(request):
    pool = pools["default"]
    return JsonResponse({
        "lent": sum(c.state == "lent" for c in pool.snapshot().connections),
        "waiting": pool.get_stats()["requests_waiting"],
        "size": pool.get_stats()["pool_size"],
    })

urlpatterns = [path("tag/<int:tag>/", tag), path("pool/", pool)]
"""
PROJECT = {
    "project_settings.py": SETTINGS,
    "project_ask.py": ASK,
    "project_urls.py": URLS,
    "project_wsgi.py": (
        "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    ),
    # Else it serves commands in a place that all gunicorns share, by a thread beside its forks.
    "gunicorn.conf.py": "control_socket_disable = True\n",
}


class Program:
    """A Python program and all processes that it starts; killed at the end of its with block.

    arguments   as after `python`; `{port}` in one of them becomes a free port
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        databases: Mapping[str, Any],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self._folder = folder
        self._arguments = [argument.format(port=self.port) for argument in arguments]
        self._environ = {**os.environ, **project_environ(folder, databases), **(environ or {})}
        self._output = folder / f"output-{self.port}"

    def __enter__(self) -> Self:
        with self._output.open("wb") as out:
            self._popen = subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=self._folder, env=self._environ, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children can be found, also as orphans
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):  # as it should be
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        if error is not None:
            error.add_note(self.text()[-3000:])

    def text(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has printed *text*."""
        self._while_it_runs(lambda: text in self.text())

    def wait_until_it_serves(self, path: str = "/pool/") -> None:
        """Wait until it answers requests for *path*."""
        self._while_it_runs(lambda: self._answers(path))

    def get(self, path: str) -> Any:
        """The JSON that it answers. Raises URLError, OSError or HTTPError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as page:
            return json.load(page)

    def get_all(self, paths: Iterable[str], *, at_once: int) -> list[Any]:
        """get() for each of *paths*, by so many clients."""
        with ThreadPoolExecutor(at_once) as clients:
            return list(clients.map(self.get, paths))

    def ask(self, count: int, *, at_once: int) -> list[Any]:
        """Answers to *count* tagged queries, each of which must be its asker's own."""
        answers = self.get_all([f"/tag/{tag}/" for tag in range(count)], at_once=at_once)
        assert [answer["tag"] for answer in answers] == list(range(count))
        return answers

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program, not to its children."""
        self._popen.send_signal(number)

    def end(self, seconds: float = 20) -> int:
        """Wait until it has ended; its exit code, negative for a signal."""
        return self._popen.wait(seconds)

    def _answers(self, path: str) -> bool:
        try:
            self.get(path)
        except OSError:
            return False
        return True

    def _while_it_runs(self, condition: Any) -> None:
        def met() -> bool:
            assert self._popen.poll() is None, self.text()
            return bool(condition())

        eventually(met, 20)


def project_environ(folder: Path, databases: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a project in *folder*, with the same driver in sight as here."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [str((ROOT / part).resolve()) for part in inherited if part]
    return {
        "TEST_DATABASES": json.dumps(databases),
        "DJANGO_SETTINGS_MODULE": "project_settings",
        "PYTHONPATH": os.pathsep.join([*absolute, str(folder), str(ROOT)]),
    }


def backend_pids(server: PostgresServer) -> set[int]:
    """Who is connected now, beside the one that asks."""
    rows = server.psql(
        "SELECT pid FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return {int(row) for row in rows}
