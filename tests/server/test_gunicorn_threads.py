"""gunicorn with more threads than connections, which no system check sees: Django runs none there.

PAINS 12.
"""

from collections.abc import Callable
from pathlib import Path

from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program
from tests.server.support import eventually

Write = Callable[[dict[str, str]], Path]

PROGRAM = (
    "-m",
    "gunicorn",
    "--workers=1",
    "--threads=4",
    "--bind=127.0.0.1:{port}",
    "project_wsgi",
)
HINT = "max_size is 2, and gunicorn runs 4 threads in each process: 2 of them may have to wait."


def test_more_threads_than_connections_are_logged_once_for_each_alias(
    databases: Databases, script_folder: Write
) -> None:
    entry = databases.settings({"max_size": 2})
    aliases = {"default": entry, "enough": databases.settings({"max_size": 4})}
    with Program(script_folder(PROJECT), *PROGRAM, databases=aliases) as gunicorn:
        gunicorn.wait_until_it_serves()
        gunicorn.ask(20, at_once=4)
        eventually(lambda: HINT in gunicorn.text())
        assert gunicorn.text().count("may have to wait") == 1
        assert f"DATABASES['default']['OPTIONS']['pool']: {HINT} To do: Raise max_size to 4" in (
            gunicorn.text()
        )
