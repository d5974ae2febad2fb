"""The peers of one run, each in its process with a database of its own; lives for one run."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers import Driver, Peer, PoolSize
from benchmarks.process import PeerError, PeerProcess
from devtools.postgres import PostgresServer

WARM_UP = "operation.operate"


def database_of(peer: Peer) -> str:
    """The name of this peer's database."""
    return "bench_" + "".join(letter if letter.isalnum() else "_" for letter in peer.name)


def make_databases(server: PostgresServer, peers: Sequence[Peer]) -> None:
    """A database for each peer, so that one peer's backends can be told from another's."""
    existing = set(server.psql("SELECT datname FROM pg_database"))
    for peer in peers:
        if database_of(peer) not in existing:
            server.create_database(database_of(peer))


def address(server: PostgresServer, peer: Peer, port: int | None = None) -> dict[str, Any]:
    """The DATABASES entry's address part; *port* is a proxy's in front of the server."""
    more = {} if port is None else {"PORT": str(port)}
    return server.django_settings(database_of(peer), **more)


class Field:
    """Peers that run and, by name, the errors of those that do not (or no longer) run."""

    def __init__(self, running: Sequence[PeerProcess], errors: Mapping[str, str]) -> None:
        self.running = list(running)
        self.errors = dict(errors)

    def interleaved(self, rounds: int) -> Iterator[PeerProcess]:
        """Each peer in turn, *rounds* times; each round begins with another peer.

        So what the machine does beside hits all peers alike, and none always follows the
        same other one.
        """
        for number in range(rounds):
            for process in self._rotated(number):
                if process in self.running:
                    yield process

    def ask(self, process: PeerProcess, task: str, **args: Any) -> Any:
        """The task's result; None if the peer failed, which then leaves the field."""
        try:
            return process.ask(task, **args)
        except PeerError as error:
            self.errors[process.peer.name] = str(error)
            self.running.remove(process)
            return None

    def _rotated(self, number: int) -> list[PeerProcess]:
        first = number % len(self.running) if self.running else 0
        return self.running[first:] + self.running[:first]


@contextlib.contextmanager
def field(
    server: PostgresServer,
    peers: Sequence[Peer],
    size: PoolSize,
    driver: Driver = "psycopg",
) -> Iterator[Field]:
    """Start the peers and have each carry out one operation; ends their processes."""
    make_databases(server, peers)
    with contextlib.ExitStack() as stack:
        running, errors = [], {}
        for peer in peers:
            process = PeerProcess(peer, address(server, peer), size, driver)
            try:
                stack.enter_context(process)
                process.ask(WARM_UP)
                running.append(process)
            except PeerError as error:
                errors[peer.name] = str(error)
        yield Field(running, errors)
