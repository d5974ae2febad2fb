"""A real Celery worker whose children do one task each. PAINS 1, 2."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program, backend_pids
from tests.server.support import eventually

Write = Callable[[dict[str, str]], Path]

# Messages are files, so that no broker is needed. Each comes to its folder whole, by a rename:
# Celery's own files for messages and results may be read half written.
TASKS = """
import json, sys
from pathlib import Path
from celery import Celery, signals
from django_psycopg_pooled import pools
from project_ask import ask
here = Path(__file__).parent
for name in ("queue", "outbox", "control", "answers"):
    (here / name).mkdir(exist_ok=True)
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(here / "queue"), "data_folder_out": str(here / "outbox"),
        "control_folder": str(here / "control"), "polling_interval": 0.02,
    },
    worker_max_tasks_per_child=1,
)

def put(path, text):
    written = path.with_suffix(".written")
    written.write_text(text)
    written.rename(path)

@app.task
def work(tag):
    put(here / "answers" / f"{tag}.json", json.dumps(ask(tag)))

# As a worker's modules may do while they are imported; the first children inherit it.
import django
django.setup()
ask(0)

@signals.worker_ready.connect
def borrow(**_):
    # Those that replace the first children inherit a lent connection and an idle one.
    with pools["default"].connection() as raw:
        print(f"masters={raw.info.backend_pid},{ask(0)['backend']}.")

if __name__ == "__main__":
    from tasks import work
    for tag in range(int(sys.argv[1])):
        work.delay(tag)
    for message in (here / "outbox").iterdir():
        message.rename(here / "queue" / message.name)
"""
WORKER = (
    "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=3",
    "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO",
)  # fmt: skip


def answered(folder: Path) -> list[Path]:
    """A file for each task that is done, named for its tag."""
    return sorted((folder / "answers").glob("*.json"))


# Where OPTIONS["pool"] says something, Celery closes the pool after each task.
@pytest.mark.parametrize(("pool", "children"), [({}, 20), ({"max_size": 4}, 4)], ids=str)
def test_a_workers_children_answer_rightly_and_leave_no_backend(
    databases: Databases, script_folder: Write, pool: dict[str, int], children: int
) -> None:
    """PAINS 1, 2. Children for one task each, of a master that has used the database."""
    folder = script_folder({**PROJECT, "tasks.py": TASKS})
    setup = {"default": databases.settings(pool)}
    with Program(folder, *WORKER, databases=setup) as worker:
        worker.wait_for(" ready.")
        numbers = worker.text().partition("masters=")[2].partition(".")[0].split(",")
        masters = set(map(int, numbers))
        assert backend_pids(databases.server) == masters

        with Program(folder, "tasks.py", str(children), databases=setup) as client:
            assert client.end() == 0
        eventually(lambda: len(answered(folder)) == children, 60)
        answers = [json.loads(path.read_text()) for path in answered(folder)]
        assert [answer["tag"] for answer in answers] == [int(p.stem) for p in answered(folder)]
        assert len({answer["process"] for answer in answers}) == children
        backends = {answer["backend"] for answer in answers}
        assert len(backends) == children
        assert not backends & masters
        eventually(lambda: backend_pids(databases.server) == masters, 30)

        worker.signal(signal.SIGTERM)
        assert worker.end() == 0
        assert "Traceback" not in worker.text()
    eventually(lambda: not backend_pids(databases.server))
