"""Many clients at once while a connect is slow: how soon served, and by how many connections.

'spike': a cold pool and long requests, so that each client needs a connection of its own: growing
one after the other shows. 'jungle': a few warm connections and requests much shorter than a
connect: opening many connections shows. Once after traffic of such requests, from which a pool may
learn; once straight after its start; and once where connects were quick until the rush, so that a
pool that learns has learnt wrongly.
Source: the jungle is HikariCP's (documents/Welcome-To-The-Jungle.md).
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.command import Run, main
from benchmarks.facts import facts
from benchmarks.field import address, make_databases
from benchmarks.figures import ratio
from benchmarks.peers import LEGEND, NATIVE, Peer, PoolSize
from benchmarks.process import PeerError, PeerProcess
from benchmarks.report import Report
from benchmarks.tables import ERROR, Column, Row, Table
from devtools.postgres import PostgresServer
from devtools.proxy import TcpProxy

ROUNDS, QUICK_ROUNDS = 5, 1
CONNECT_S = 0.150
SETTLE_S = 2.5 * CONNECT_S  # connects that nobody waits for any more count too
TASK_LIMIT_S = 40.0


@dataclass(frozen=True)
class Case:
    """One kind of rush."""

    title: str
    clients: int
    size: PoolSize
    sql: str
    hold: bool
    warm: int = 0  # connections
    traffic: int = 0  # operations of each warm connection before the rush
    quick_before: bool = False  # connects are slow only from the rush on


REQUEST = "SELECT pg_sleep(0.002)"
SPIKE = Case(
    "spike: 20 clients at once, pool cold and of at most 20; each in a transaction that stays"
    " open until all are served",
    clients=20, size=PoolSize(0, 20), sql="SELECT 1", hold=True,
)  # fmt: skip
JUNGLE = Case(
    "jungle: 50 requests of 2 ms at once, pool of at most 50 with 5 connections warm, after"
    " traffic",
    clients=50, size=PoolSize(5, 50), sql=REQUEST, hold=False, warm=5, traffic=50,
)  # fmt: skip
FRESH_JUNGLE = Case(
    "fresh jungle: the same straight after the start",
    clients=50, size=PoolSize(5, 50), sql=REQUEST, hold=False, warm=5,
)  # fmt: skip
SLOWED_JUNGLE = Case(
    "slowed jungle: straight after the start, and connects were quick until the rush",
    clients=50, size=PoolSize(5, 50), sql=REQUEST, hold=False, warm=5, quick_before=True,
)  # fmt: skip
CASES = (SPIKE, JUNGLE, FRESH_JUNGLE, SLOWED_JUNGLE)


@dataclass(frozen=True)
class Outcome:
    """One rush on one peer."""

    first_ms: float
    last_ms: float
    opened: int


Outcomes = dict[str, list[Outcome]]

COLUMNS = (
    Column("peer", "peer"),
    Column("first_ms", "first served ms", "{:,.0f}"),
    Column("last_ms", "last served ms", "{:,.0f}"),
    Column("last_least_ms", "min", "{:,.0f}"),
    Column("last_most_ms", "max", "{:,.0f}"),
    Column("opened", "opened", "{:.0f}"),
    Column("x_last", "last / native", "{:.2f}"),
)
HOW = (
    "A proxy holds each new connection back for {ms:.0f} ms. A fresh process for each of {rounds}"
    " rounds in turn; a figure is the median of the rounds. opened: connections made during the"
    " rush and {settle:.1f} s after it."
)


def measure(server: PostgresServer, run: Run) -> Report:
    """Run all cases and report."""
    known = facts(server)
    rounds = QUICK_ROUNDS if run.quick else ROUNDS
    make_databases(server, run.peers)
    tables = []
    for case in CASES:
        outcomes, errors = _outcomes(server, run.peers, case, rounds)
        rows = [_row(peer.name, outcomes, errors) for peer in run.peers]
        tables.append(Table(case.title, COLUMNS, rows))
    how = HOW.format(ms=1e3 * CONNECT_S, rounds=rounds, settle=SETTLE_S)
    return Report("spike", how, known, tables, notes=[LEGEND])


def _outcomes(
    server: PostgresServer, peers: Sequence[Peer], case: Case, rounds: int
) -> tuple[Outcomes, dict[str, str]]:
    outcomes: Outcomes = {peer.name: [] for peer in peers}
    errors: dict[str, str] = {}
    for number in range(rounds * len(peers)):
        peer = peers[number % len(peers)]
        if peer.name not in errors:
            try:
                outcomes[peer.name].append(_rush(server, peer, case))
            except PeerError as error:
                errors[peer.name] = str(error)
    return {name: found for name, found in outcomes.items() if name not in errors}, errors


def _rush(server: PostgresServer, peer: Peer, case: Case) -> Outcome:
    with (
        TcpProxy(server.host, server.port) as proxy,
        PeerProcess(peer, address(server, peer, proxy.port), case.size) as process,
    ):
        proxy.delay(0.0 if case.quick_before else CONNECT_S)
        process.ask("spike.load")
        if case.warm:
            process.ask("spike.warm", connections=case.warm)
        if case.traffic:
            process.ask("spike.traffic", threads=case.warm, operations=case.traffic, sql=case.sql)
        proxy.delay(CONNECT_S)
        proxy.reset_count()
        served = process.ask(
            "spike.storm", TASK_LIMIT_S, clients=case.clients, sql=case.sql, hold=case.hold
        )
        time.sleep(SETTLE_S)
        return Outcome(1e3 * min(served), 1e3 * max(served), proxy.accepted)


def _row(name: str, outcomes: Outcomes, errors: Mapping[str, str]) -> Row:
    if name in errors:
        return {"peer": name, ERROR: errors[name]}
    lasts = [one.last_ms for one in outcomes[name]]
    return {
        "peer": name,
        "first_ms": _median(outcomes, name, "first_ms"),
        "last_ms": _median(outcomes, name, "last_ms"),
        "last_least_ms": min(lasts),
        "last_most_ms": max(lasts),
        "opened": _median(outcomes, name, "opened"),
        "x_last": ratio(_median(outcomes, name, "last_ms"), _median(outcomes, NATIVE, "last_ms")),
    }


def _median(outcomes: Outcomes, name: str, figure: str) -> float | None:
    values = [getattr(one, figure) for one in outcomes.get(name, ())]
    return statistics.median(values) if values else None


if __name__ == "__main__":
    main(measure, "A rush of clients on a cold and on a warm pool, with slow connects.")
