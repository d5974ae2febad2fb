"""pip, as another process, with an error that says what to do."""

import subprocess
import sys
from pathlib import Path

from devtools.django_suite.errors import SuiteError, last_lines


def make_venv(folder: Path) -> Path:
    """A virtual environment of the running interpreter in *folder*; its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        _run(sys.executable, "-m", "venv", str(folder))
    return python


def pip(python: Path, command: str, *arguments: object) -> str:
    """Run `pip command`; what it printed. Blocks for as long as the network needs."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    return _run(str(python), "-m", "pip", command, *quiet, *map(str, arguments))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        what = " ".join(command[1:])
        raise SuiteError(
            f"This command failed with status {done.returncode}:\n    {what}\n"
            f"{last_lines(done.stderr or done.stdout)}\n"
            "If the last lines name a host or a retry, there is no network: what was downloaded"
            " before is kept, so a version that was used before needs less of it."
        )
    return done.stdout
