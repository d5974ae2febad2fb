"""A PgBouncer of our own before a devtools.postgres.PostgresServer: on a free port, for one run.

    with PgBouncer(server, default_pool_size=3) as bouncer:
        DATABASES = {"default": bouncer.django_settings("shop")}
        bouncer.show("POOLS")

Needs the program, which a distribution's package brings. It refuses root, as PostgreSQL does.
"""

import contextlib
import csv
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devtools.postgres import SYSTEM_USER, PostgresServer, free_port, given_to

STARTS_WITHIN_S = 10.0


def program() -> Path | None:
    """The installed PgBouncer; None if there is none."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


class PgBouncer:
    """One PgBouncer process; lives from start() to stop()."""

    host = "127.0.0.1"

    def __init__(self, server: PostgresServer, **options: object) -> None:
        """*options* are settings of PgBouncer, on top of transaction mode."""
        self.server = server
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
        found = program()
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
