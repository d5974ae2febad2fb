"""The demo's PostgreSQL: one server, one filled shop, and a fresh copy of it per variant."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from devtools.postgres import PostgresServer
from example.demo.facts import DemoError
from example.demo.interrupts import check, uninterrupted
from example.demo.manage import manage
from example.demo.process import Process

TEMPLATE = "shop"
# A vacuum would hit one variant and not the others.
OPTIONS = {"autovacuum": "off"}


class Database:
    """The server and what the driver asks it; lives from start() until *stack* closes."""

    def __init__(self, folder: Path) -> None:
        self.server = PostgresServer(options=OPTIONS)
        self._folder = folder

    def start(self, stack: contextlib.ExitStack) -> None:
        """Start the server; a few seconds."""
        with uninterrupted():
            stack.callback(self.server.destroy)
            self.server.create()
            self.server.start()
        self.server.create_database(TEMPLATE)

    def fill(self) -> str:
        """Migrate and fill the shop; what fill_shop said."""
        self.manage("migrate", "--verbosity=0")
        said = self.manage("fill_shop")
        self.server.psql("VACUUM ANALYZE", TEMPLATE)
        return said

    def manage(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run one manage.py command on the filled shop; its output."""
        return manage(self._folder, {**self.environ(TEMPLATE), **(environ or {})}, *arguments)

    def copy(self, name: str) -> str:
        """A copy of the filled shop for one variant; its name."""
        copy = f"{TEMPLATE}_{name}"
        self.server.psql(f'CREATE DATABASE "{copy}" TEMPLATE "{TEMPLATE}"')
        return copy

    def environ(self, name: str) -> dict[str, str]:
        """What example/settings.py reads."""
        return {
            "SHOP_DB_NAME": name,
            "SHOP_DB_USER": self.server.user,
            "SHOP_DB_PASSWORD": self.server.password,
            "SHOP_DB_HOST": self.server.host,
            "SHOP_DB_PORT": str(self.server.port),
            # Not the user's own directory: nothing of the demo is to stay there.
            "SHOP_CONTROL_DIR": str(self._folder / "control"),
        }

    def count(self, table: str) -> int:
        """How many rows one of the shop's tables has, before any load."""
        return int(self.server.psql(f"SELECT count(*) FROM shop_{table}", TEMPLATE)[0])

    def watch(self) -> "Watch":
        """A connection beside the shop's, to look at them."""
        kwargs = self.server.connect_kwargs("postgres")
        return Watch(psycopg.Connection.connect(**kwargs, autocommit=True))


class Watch:
    """What the server itself says about the clients of one database."""

    INTERVAL_S = 0.05

    def __init__(self, connection: psycopg.Connection[tuple[int]]) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    def connections(self, database: str) -> int:
        """Client connections at this moment."""
        return self._ask(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND datname = %s",
            database,
        )

    def connects(self, database: str) -> int:
        """Connections made since the database exists."""
        return self._ask("SELECT sessions FROM pg_stat_database WHERE datname = %s", database)

    def peak_while(self, process: Process, database: str, seconds: float) -> int:
        """The most connections at once until *process* ends; DemoError if it takes *seconds*."""
        peak, deadline = 0, time.monotonic() + seconds
        while process.exit_code is None:
            check()
            if time.monotonic() > deadline:
                raise DemoError(f"The load did not end within {seconds:.0f} s.\n{process.tail()}")
            peak = max(peak, self.connections(database))
            process.wait(self.INTERVAL_S)
        return peak

    def _ask(self, sql: str, database: str) -> int:
        row = self._connection.execute(sql.encode(), [database]).fetchone()
        return int(row[0]) if row else 0
