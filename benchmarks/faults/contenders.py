"""Who is compared, and one contender's trial of one fault."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.command import Run
from benchmarks.field import address, database_of
from benchmarks.peers import OURS, PEERS, PERSISTENT, UNPOOLED, Driver, Peer, PoolSize, named
from benchmarks.process import PeerProcess
from devtools.postgres import PostgresServer

POOLLESS = (UNPOOLED, PERSISTENT)
BY_TRANSACTION = "ours by transaction"


def contenders(run: Run) -> list[Peer]:
    """The pools among the peers, ours a second time with release="transaction".

    A quick run has ours alone, unless peers were named.
    """
    asked = named([OURS]) if run.quick and run.peers is PEERS else run.peers
    pools = [peer for peer in asked if peer.name not in POOLLESS]
    return pools + [_by_transaction(peer) for peer in pools if peer.name == OURS]


def _by_transaction(ours: Peer) -> Peer:
    return replace(with_options(ours, {"release": "transaction"}), name=BY_TRANSACTION)


def with_options(peer: Peer, options: Mapping[str, Any]) -> Peer:
    """*peer* with these pool options, as far as its pool has them."""

    def settings(size: PoolSize) -> Mapping[str, Any]:
        given = peer.settings(size)
        if "POOL_OPTIONS" in given:  # SQLAlchemy's
            shouted = {name.upper(): value for name, value in options.items()}
            return {**given, "POOL_OPTIONS": {**given["POOL_OPTIONS"], **shouted}}
        if "pool" in given["OPTIONS"]:
            pool = {**given["OPTIONS"]["pool"], **options}
            return {**given, "OPTIONS": {**given["OPTIONS"], "pool": pool}}
        return given  # django-db-geventpool waits for ever

    return replace(peer, settings=settings)


@dataclass(frozen=True)
class Trial:
    """One contender's trial of one fault; its database is its own, its processes too."""

    server: PostgresServer
    peer: Peer
    driver: Driver
    quick: bool

    @property
    def database(self) -> str:
        """The name of this contender's database."""
        return database_of(self.peer)

    def process(
        self,
        size: PoolSize,
        *,
        timeout: float | None = None,
        port: int | None = None,
        ours: Mapping[str, Any] | None = None,
    ) -> PeerProcess:
        """The contender's process, not started.

        timeout   seconds that a request may wait, where the contender lets that be set
        port      a proxy's, in front of the server
        ours      more pool options for ours alone
        """
        options = {} if timeout is None else {"timeout": timeout}
        peer = with_options(self.peer, options)
        if ours and self.peer.name in (OURS, BY_TRANSACTION):
            peer = with_options(peer, ours)
        return PeerProcess(peer, address(self.server, self.peer, port), size, self.driver)
