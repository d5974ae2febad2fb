"""The development server, which has a thread a request, and reloads. PAINS 9, 10."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program, backend_pids
from tests.server.support import eventually

Write = Callable[[dict[str, str]], Path]

MAX_SIZE = 3
MANAGE = "import sys\nfrom django.core.management import execute_from_command_line as run\nrun()\n"
RUNSERVER = ("-X", "dev", "manage.py", "runserver", "127.0.0.1:{port}")


def test_runserver_keeps_to_max_size_and_leaves_nothing_at_a_reload(
    databases: Databases, script_folder: Write
) -> None:
    """PAINS 10. 15 requests before, between and after three reloads."""
    folder = script_folder({**PROJECT, "manage.py": MANAGE})
    entry = databases.settings({"max_size": MAX_SIZE})
    with Program(folder, *RUNSERVER, databases={"default": entry}) as program:
        program.wait_until_it_serves()
        processes: set[int] = set()
        for reload in range(4):
            if reload:
                old = backend_pids(databases.server)
                assert 1 <= len(old) <= MAX_SIZE
                edit(folder / "project_urls.py")
                # Exit and start of the new process: no request is sent before the old one's end.
                eventually(lambda: not old & backend_pids(databases.server))  # noqa: B023
                program.wait_until_it_serves()
            answers = program.ask(15, at_once=10)
            processes.add(process_of(answers))
            assert max(answer["backends"] for answer in answers) <= MAX_SIZE
            assert program.get("/pool/")["lent"] == 0
        assert len(processes) == 4
        program.signal(signal.SIGTERM)
        program.end()
        assert "Traceback" not in program.text()
        assert "Warning" not in program.text()
    eventually(lambda: not backend_pids(databases.server))


def edit(path: Path) -> None:
    """Save a file again, as an editor does."""
    path.write_text(path.read_text() + "\n")


def process_of(answers: list[Any]) -> int:
    """The one process that gave all *answers*."""
    [process] = {answer["process"] for answer in answers}
    return int(process)
