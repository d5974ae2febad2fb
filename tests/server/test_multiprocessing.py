"""multiprocessing by each of its start methods: own connections, own rows, nothing left. PAINS 1,
2."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.databases import Databases
from tests.server.processes import ASK, SETTINGS, Program, backend_pids
from tests.server.support import eventually

Write = Callable[[dict[str, str]], Path]

# `spawn` imports this file in the child, where it must find Django set up as here.
MAIN = """
import multiprocessing, os, sys, warnings
import django
django.setup()
from django.db import connection
from django_psycopg_pooled import pools
from project_ask import ask
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

def work(tag):
    answer = ask(tag)
    if tag % 3 == 0:
        connection.close()
    return answer

def gone(backends):
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [backends])
        return cursor.fetchone() == (0,)

def main(method, end):
    from tests.server.support import eventually
    mine = {ask(0)["backend"]}
    with pools["default"].connection() as raw:
        mine.add(raw.info.backend_pid)
    assert len(mine) == 2
    context = multiprocessing.get_context(method)
    workers = context.Pool(3)
    answers = workers.map(work, range(300), chunksize=5)
    getattr(workers, end)()
    workers.join()
    assert [answer["tag"] for answer in answers] == list(range(300))
    theirs = {}
    for answer in answers:
        theirs.setdefault(answer["backend"], set()).add(answer["process"])
    assert {len(processes) for processes in theirs.values()} == {1}, theirs
    assert not mine & theirs.keys()
    assert os.getpid() not in set().union(*theirs.values())
    eventually(lambda: gone(list(theirs)))
    assert ask(1)["backend"] in mine
    connection.close()
    assert pools["default"].get_stats()["connections_lost"] == 0
    print("well done by", len(set().union(*theirs.values())))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.parametrize("end", ["close", "terminate"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_get_their_own_rows_and_leave_no_backend(
    databases: Databases, script_folder: Write, method: str, end: str
) -> None:
    """PAINS 1, 2. 300 tagged queries by a Pool of 3, under a lent and an idle connection."""
    folder = script_folder(
        {"project_settings.py": SETTINGS, "project_ask.py": ASK, "main.py": MAIN}
    )
    arguments = ("-X", "dev", "main.py", method, end)
    with Program(folder, *arguments, databases={"default": databases.settings()}) as program:
        assert program.end() == 0
        assert program.text() in {f"well done by {n}\n" for n in (1, 2, 3)}
    eventually(lambda: not backend_pids(databases.server))
