"""A primary and a streaming standby of our own, which can take its place; for one run.

    with replicated("shop") as pair:
        DATABASES = {"default": pair.django_settings()}  # names both servers
        pair.fail_over()

The standby is a copy by pg_basebackup of a devtools.postgres.PostgresServer, and runs as the same
system user. Replication is asynchronous: the last moments of a primary that crashes are lost.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devtools.postgres import PostgresServer

CAUGHT_UP_WITHIN_S = 30.0


class Standby(PostgresServer):
    """A server that follows *primary*, which must run, and can be read; until promote()."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(bin_dir=primary.bin_dir)
        self._primary = primary

    def create(self) -> None:
        """Copy the primary's data folder; about a second."""
        # Over the primary's local socket, which asks its own system user for no password.
        self._run("pg_basebackup", "-h", self._primary.data.parent, "-p", self._primary.port,
                  "-U", self.user, "-D", self.data, "-R", "-X", "stream", "-c", "fast",
                  "--no-sync")  # fmt: skip
        self.listen_here()

    def promote(self) -> None:
        """Become a primary; returns when writes are taken, after about 0.1 s."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "promote")

    def catch_up(self) -> None:
        """Wait until all that the primary has written so far can be read here."""
        # The place of a new record: where the log ends now may never be replayed, a page's header.
        [target] = self._primary.psql("SELECT pg_logical_emit_message(true, 'catch_up', '')")
        deadline = time.monotonic() + CAUGHT_UP_WITHIN_S
        while self.psql(f"SELECT pg_last_wal_replay_lsn() >= '{target}'") != ["t"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the standby is not at {target} in {CAUGHT_UP_WITHIN_S} s")
            time.sleep(0.02)


@dataclass(frozen=True)
class Pair:
    """Two servers with the same data; which of them takes writes changes at fail_over()."""

    primary: PostgresServer
    standby: Standby
    database: str

    def fail_over(self) -> None:
        """Crash the primary and have the standby take its place; returns when it has."""
        self.primary.stop("immediate")
        self.standby.promote()

    def django_settings(self, **more: Any) -> dict[str, Any]:
        """An entry for Django's DATABASES without an ENGINE that names both; *more* goes on top."""
        servers = (self.primary, self.standby)
        return {
            **self.primary.django_settings(self.database),
            "HOST": ",".join(server.host for server in servers),
            "PORT": ",".join(str(server.port) for server in servers),
            **more,
        }


@contextlib.contextmanager
def replicated(database: str, **options: object) -> Iterator[Pair]:
    """A primary with *database*, and a standby that has it too; *options* configure both."""
    with PostgresServer(options=options) as primary:
        primary.create_database(database)
        with Standby(primary) as standby:
            standby.catch_up()
            yield Pair(primary, standby, database)
