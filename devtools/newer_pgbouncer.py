"""A PgBouncer from 1.21 on, built from Debian's next release: Debian 12 itself has 1.18.

    python3 -m devtools.newer_pgbouncer    # half a minute, and nothing if there is one

The source package comes from the mirror of this machine's apt, which checks its signature. Lists
and caches are of this run alone, so that the machine's next `apt-get install` takes nothing from
there. The program stays in .cache/pgbouncer-VERSION, where devtools.pgbouncer finds it.
"""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from devtools.pgbouncer import BUILT, FROM_1_21, version

SUITE = "trixie"  # Debian 13: PgBouncer 1.24
NEEDS = "build-essential pkg-config libevent-dev libssl-dev"

# A machine without a way to the mirror hears of it, and soon.
ASKING_S = 10.0
DOWNLOAD_S = 60.0
BUILD_S = 240.0  # measured: 21 s on two idle cores
APT = """\
Dir::Etc::sourcelist "{0}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "{0}/lists";
Dir::Cache "{0}/cache";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
Acquire::Retries "1";
APT::Update::Error-Mode "any";
# What this machine does after an update of its own lists.
#clear APT::Update::Post-Invoke-Success;
"""


class BuildError(Exception):
    """There is no program; the text says why."""


def main() -> int:
    """Print the program's path and version; the exit status. Worst case: the sum of the limits."""
    os.umask(0o022)  # it runs as another user
    try:
        found = FROM_1_21.program() or build()
    except (BuildError, OSError) as error:
        print(f"No PgBouncer from 1.21 on could be built: {error}\n"
              f"It needs {NEEDS}, and an apt whose mirror has Debian's {SUITE}.\n"
              "One that you have already is used if it is on PATH.", file=sys.stderr)  # fmt: skip
        return 1
    print(f"PgBouncer {_version(found)}: {found}")
    return 0


def build() -> Path:
    """Download, compile and keep it; the program."""
    with tempfile.TemporaryDirectory(prefix="dpp-pgbouncer-build-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # for the user as whom apt downloads
        source = _download(folder)
        _run(["./configure"], source, BUILD_S)
        _run(["make", f"-j{os.cpu_count() or 1}", "pgbouncer"], source, BUILD_S)
        return _keep(source / "pgbouncer")


def mirror() -> str:
    """From where this machine's apt has its own release."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    with tempfile.TemporaryDirectory() as folder:
        said = _run(["apt-get", "update", "--print-uris"], Path(folder), ASKING_S)
    found = re.search(rf"^'(\S+/)dists/{re.escape(release)}/", said, re.MULTILINE)
    if not release or found is None:
        raise BuildError(f"apt has no mirror of this machine's own release, {release!r}.")
    return found[1]


def _download(folder: Path) -> Path:
    """The source's folder, below *folder*."""
    (folder / "sources.list").write_text(f"deb-src {mirror()} {SUITE} main\n")
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    (folder / "apt.conf").write_text(APT.format(folder))
    apt = ["apt-get", f"-c={folder}/apt.conf"]
    _run([*apt, "update"], folder, DOWNLOAD_S)
    _run([*apt, "source", "pgbouncer"], folder, DOWNLOAD_S)
    for configure in folder.glob("pgbouncer-*/configure"):
        return configure.parent
    raise BuildError("the source package has no ./configure.")


def _keep(program: Path) -> Path:
    """The program's lasting place."""
    if not FROM_1_21.has(program):
        raise BuildError(f"{SUITE} has PgBouncer {_version(program)}.")
    place = BUILT / f"pgbouncer-{_version(program)}"
    place.mkdir(parents=True, exist_ok=True)
    # Moved when it is whole: a run beside this one, or the next, finds no half of it.
    with tempfile.TemporaryDirectory(dir=place) as folder:
        return Path(shutil.copy(program, folder)).rename(place / "pgbouncer")


def _version(program: Path) -> str:
    return ".".join(map(str, version(program)))


def _run(command: list[str], folder: Path, limit: float) -> str:
    """What *command* said. Raises BuildError if it fails or goes on for *limit* seconds."""
    with tempfile.TemporaryFile("w+") as log:
        try:
            outcome = f"ended with status {_status(command, folder, limit, log)}"
        except subprocess.TimeoutExpired:
            outcome = f"did not end within {limit:.0f} s"
        log.seek(0)
        said = log.read()
    if outcome == "ended with status 0":
        return said
    last = "".join(f"    {line[:300]}\n" for line in said.splitlines()[-15:])
    raise BuildError(f"{' '.join(command)!r} {outcome}. It said last:\n{last}")


def _status(command: list[str], folder: Path, limit: float, log: IO[str]) -> int:
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(limit)
    except BaseException:
        # With its children, of which apt and make have some.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


if __name__ == "__main__":
    sys.exit(main())
