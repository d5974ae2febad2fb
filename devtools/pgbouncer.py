"""A PgBouncer of our own before a devtools.postgres.PostgresServer: on a free port, for one run.

    with PgBouncer(server, default_pool_size=3) as bouncer:
        DATABASES = {"default": bouncer.django_settings("shop")}
        bouncer.show("POOLS")

Needs the program, which a distribution's package brings; a newer one comes from
devtools.newer_pgbouncer. It refuses root, as PostgreSQL does.
"""

import contextlib
import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devtools.postgres import SYSTEM_USER, PostgresServer, free_port, given_to

STARTS_WITHIN_S = 10.0
BUILT = Path(__file__).resolve().parents[1] / ".cache"  # devtools.newer_pgbouncer's, by version


def program() -> Path | None:
    """The installed PgBouncer; None if there is none."""
    return next(_installed(), None)


@dataclass(frozen=True)
class Edition:
    """Versions of PgBouncer that are alike in what a pool meets.

    oldest   the first one
    end      the first one that is not of them any more
    missing  what to tell whoever has none
    """

    name: str
    oldest: tuple[int, ...]
    end: tuple[int, ...]
    missing: str

    def program(self) -> Path | None:
        """One of these on PATH, else one that was built; None if there is neither."""
        built = sorted(BUILT.glob("pgbouncer-*/pgbouncer"), key=version, reverse=True)
        return next((each for each in (*_installed(), *built) if self.has(each)), None)

    def has(self, program: Path) -> bool:
        """Whether *program* is one of these."""
        return self.oldest <= version(program) < self.end


# 1.20 is neither: it takes settings in the start-up packet, but knows no prepared statements.
BEFORE_1_20 = Edition(
    "before-1.20", (0,), (1, 20),
    "PgBouncer before 1.20 is missing: on Debian 12 'apt-get install pgbouncer' brings it.",
)  # fmt: skip
FROM_1_21 = Edition(
    "from-1.21-on", (1, 21), (sys.maxsize,),
    "PgBouncer from 1.21 on is missing: 'python3 -m devtools.newer_pgbouncer' builds one; one that"
    " is on PATH will do.",
)  # fmt: skip


@cache
def version(program: Path) -> tuple[int, ...]:
    """Its numbers, such as (1, 24, 1); () if it tells none."""
    said = subprocess.run(
        [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    ).stdout
    found = re.search(r"PgBouncer ([\d.]+)", said)
    return tuple(int(number) for number in found[1].strip(".").split(".")) if found else ()


def _installed() -> Iterator[Path]:
    for folder in (*os.environ.get("PATH", "").split(":"), "/usr/sbin"):
        found = shutil.which("pgbouncer", path=folder) if folder else None
        if found:
            yield Path(found)


class PgBouncer:
    """One PgBouncer process; lives from start() to stop()."""

    host = "127.0.0.1"

    def __init__(
        self, server: PostgresServer, *, program: Path | None = None, **options: object
    ) -> None:
        """*options* are settings of PgBouncer, on top of transaction mode.

        program   which one to run; the first that is installed if none is given
        """
        self.server = server
        self._program = program
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="dpp-pgbouncer-"))
        self._as = given_to(SYSTEM_USER, self._folder)
        self.log = self._folder / "log"
        self._options = {
            "pool_mode": "transaction",
            "listen_addr": self.host,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self._folder / "users",
            "admin_users": server.user,
            **options,
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    def start(self) -> None:
        """Start PgBouncer and wait until it takes connections; 0.1 s."""
        found = self._program or program()
        if found is None:
            raise RuntimeError("pgbouncer is not installed: 'apt-get install pgbouncer'.")
        server = self.server
        # The password as it is: with it PgBouncer can both ask for SCRAM and answer it.
        (self._folder / "users").write_text(f'"{server.user}" "{server.password}"\n')
        lines = [f"{name} = {value}" for name, value in self._options.items()]
        ini = self._folder / "pgbouncer.ini"
        ini.write_text(
            f"[databases]\n* = host={server.host} port={server.port}\n"
            + "\n".join(["[pgbouncer]", *lines, ""])
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [found, ini], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as
            )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pgbouncer does not listen: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it at once, and with it every connection through it."""
        if self._process is not None:
            # Not SIGTERM, on which newer ones wait for their clients.
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def destroy(self) -> None:
        """End it, if it runs, and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def show(self, what: str) -> list[dict[str, str]]:
        """The rows of the admin console's SHOW *what*."""
        return list(csv.DictReader(self.command(f"SHOW {what}").splitlines()))

    def command(self, sql: str) -> str:
        """Run *sql* in the admin console; its answer as CSV with a headline."""
        command = [str(self.server.bin_dir / "psql"), "-X", "-q", "--csv", "-v", "ON_ERROR_STOP=1",
                   "-h", self.host, "-p", str(self.port), "-U", self.server.user,
                   "-d", "pgbouncer", "-c", sql]  # fmt: skip
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={**os.environ, "PGPASSWORD": self.server.password}, **self._as,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"psql ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def django_settings(self, database: str, **more: Any) -> dict[str, Any]:
        """An entry for Django's DATABASES without an ENGINE; *more* goes on top."""
        mine = {"HOST": self.host, "PORT": str(self.port)}
        return {**self.server.django_settings(database), **mine, **more}

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
            return True
        return False
