"""gunicorn --preload by an application that queries while it is imported. PAINS 1."""

import signal
from collections.abc import Callable
from pathlib import Path

from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program, backend_pids
from tests.server.support import eventually

Write = Callable[[dict[str, str]], Path]

# Leaves the master with a lent connection and an idle one, which all workers inherit.
WSGI = """
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
from django_psycopg_pooled import pools
from project_ask import ask
with pools["default"].connection() as raw:
    print("idle", raw.info.backend_pid, flush=True)
    print("lent", ask(1)["backend"], flush=True)
"""
PROGRAM = (
    "-X", "dev", "-m", "gunicorn", "--preload", "--worker-class=gthread", "--workers=3",
    "--threads=4", "--graceful-timeout=5", "--bind=127.0.0.1:{port}", "project_wsgi",
)  # fmt: skip


def backends_used(gunicorn: Program, requests: int) -> dict[int, set[int]]:
    """Send that many requests, more if a worker got none; which backends each worker has used."""
    found: dict[int, set[int]] = {}

    def all_three() -> bool:
        for answer in gunicorn.ask(requests, at_once=24):
            found.setdefault(answer["process"], set()).add(answer["backend"])
        return len(found) == 3

    eventually(all_three)
    return found


def assert_apart(used: dict[int, set[int]], masters: set[int]) -> set[int]:
    """All backends of the workers, who share none."""
    everyones: set[int] = set()
    for own in used.values():
        assert not own & (everyones | masters), (used, masters)
        everyones |= own
    return everyones


def test_workers_forked_from_a_master_that_has_queried_share_nothing_and_leave_nothing(
    databases: Databases, script_folder: Write
) -> None:
    """PAINS 1. 400 tagged requests before a reload by HUP and 100 after, then a graceful stop."""
    folder = script_folder({**PROJECT, "project_wsgi.py": WSGI})
    entry = databases.settings({"max_size": 4})
    with Program(folder, *PROGRAM, databases={"default": entry}) as gunicorn:
        gunicorn.wait_until_it_serves()
        words = gunicorn.text().split()
        masters = {int(words[words.index(word) + 1]) for word in ("idle", "lent")}
        assert masters <= backend_pids(databases.server)

        first = backends_used(gunicorn, 400)
        of_the_first = assert_apart(first, masters)

        gunicorn.signal(signal.SIGHUP)
        eventually(lambda: not of_the_first & backend_pids(databases.server))
        gunicorn.wait_until_it_serves()
        second = backends_used(gunicorn, 100)
        assert not assert_apart(second, masters) & of_the_first
        assert not second.keys() & first.keys()
        assert masters <= backend_pids(databases.server)

        gunicorn.signal(signal.SIGTERM)
        assert gunicorn.end() == 0
        assert "Traceback" not in gunicorn.text()
        assert "Warning" not in gunicorn.text()
    eventually(lambda: not backend_pids(databases.server))
