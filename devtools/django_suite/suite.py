"""One run of Django's runtests.py: a group of processes, a log file, a deadline."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.django_suite import log
from devtools.django_suite.choices import WORK
from devtools.django_suite.environment import Environment
from devtools.django_suite.errors import SuiteError, last_lines
from devtools.django_suite.server import DATABASES, SuiteServer

ON_PATH = Path(__file__).with_name("on_path")
# Variables that would change what Django, Python or libpq do.
NOT_INHERITED = ("DJANGO", "PG", "PYTHON")
SECONDS_TO_DIE = 10.0


@dataclass(frozen=True)
class Suite:
    """How the suite is run; the same for ours and for stock but for the ENGINE and its OPTIONS."""

    environment: Environment
    server: SuiteServer
    parallel: int
    timeout: float  # seconds

    def run(
        self, engine: str, options: dict[str, Any], labels: tuple[str, ...], logged: str
    ) -> log.Outcome:
        """Run *labels* to the end; no labels are all tests. Blocks up to the timeout and 10 s.

        Raises SuiteError if there is no complete result.
        """
        path = self.log_file(logged)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out, tempfile.TemporaryDirectory() as scratch:
            environ = self._environ(engine, options, scratch)
            with self._started(labels, environ, out) as process:
                status = self._wait(process, path)
        return log.read(path.read_text(errors="replace"), status)

    def log_file(self, logged: str) -> Path:
        """Where the log named *logged* is or will be: `ours` or `stock`."""
        return WORK / "logs" / self.environment.name / f"{logged}.log"

    @contextlib.contextmanager
    def _started(
        self, labels: tuple[str, ...], environ: dict[str, str], out: Any
    ) -> Iterator["subprocess.Popen[bytes]"]:
        command = [str(self.environment.python), "runtests.py", "--settings=django_suite_settings",
                   "--noinput", f"--parallel={self.parallel}", "--timing", *labels]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=self.environment.tests, env=environ, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            _end(process)

    def _wait(self, process: "subprocess.Popen[bytes]", path: Path) -> int:
        try:
            return process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            # Each process prints the stacks of its threads (PYTHONFAULTHANDLER), then dies of it.
            _signal(process, signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_DIE)
            raise SuiteError(
                f"The suite did not end within {self.timeout:g} s and was ended. Its log, with the"
                f" stacks of its threads at the end: {path}\n"
                f"{last_lines(path.read_text(errors='replace'), 30)}"
            ) from None

    def _environ(self, engine: str, options: dict[str, Any], scratch: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        aliases = zip(("default", "other"), DATABASES, strict=True)
        databases = {
            alias: self.server.django_settings(name, ENGINE=engine, OPTIONS=options)
            for alias, name in aliases
        }
        return {
            **kept,
            "DJANGO_SUITE_DATABASES": json.dumps(databases),
            "LC_ALL": "C.UTF-8",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": str(ON_PATH),
            "PYTHONUNBUFFERED": "1",  # else what tests print may stand behind the result
            "TMPDIR": scratch,
        }


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the suite with all its workers, also when the user interrupts."""
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
