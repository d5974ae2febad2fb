"""Ten times more requests than a pool can serve: how many are served, how fast, and the others?"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.command import Run, main
from benchmarks.facts import facts
from benchmarks.field import Field, field
from benchmarks.figures import percentile, ratio
from benchmarks.peers import NATIVE, OURS, Peer, PoolSize, named
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, Cell, Column, Row, Table
from devtools.postgres import PostgresServer

SIZE = PoolSize(4, 4)
THREADS = 100
TIMES = 10  # offered load / capacity
TIMEOUT_S = 0.3
MAX_WAITING = 8
SERVICE_S, SLOW_S = 0.02, 0.1
QUEUES = (0, 4, 8, 32)  # max_waiting; 0 is without a limit
FULL, QUICK = (30.0, 6.0), (0.6, 0.4)  # seconds of overload: side by side, and each of QUEUES
CAPACITY_SHARE = 0.2  # of those, to measure the capacity first

COLUMNS = (
    Column("peer", "peer"),
    Column("service_ms", "sleep", "{:.0f}"),
    Column("queue", "queue"),
    Column("capacity", "capacity/s", "{:,.0f}"),
    Column("offered", "offered/s", "{:,.0f}"),
    Column("goodput", "served/s", "{:,.0f}"),
    Column("share", "share", "{:.2f}"),
    Column("p50_ms", "p50", "{:,.0f}"),
    Column("p99_ms", "p99", "{:,.0f}"),
    Column("refused_ms", "refused", "{:.1f}"),
    Column("late", "late/s", "{:,.1f}"),
)
HOW = (
    "{threads} threads offer {times} times what {size} connections serve when nobody waits; a"
    " request is pg_sleep() and close(); timeout {timeout:g} s. sleep: ms; queue: max_waiting;"
    " share: served / capacity; p50 and p99: ms, of the served; refused: median ms until"
    " TooManyRequests; late/s: PoolTimeout."
)
SIDE_BY_SIDE = "The peers that can refuse, {seconds:g} s each with max_waiting={queue}"
SWEEP = "Ours with other limits of the queue, {seconds:g} s each"
CODEL = (
    "A target for the time in the queue, as Ecto's db_connection has, would choose among these rows"
    " by itself, the shortest queue that keeps the connections busy; what it can gain is the"
    " difference between them. 'any' is bounded by the threads alone."
)


@dataclass(frozen=True)
class Load:
    """What is offered to one peer."""

    peer: Peer
    queue: int
    service_s: float
    seconds: float


def measure(server: PostgresServer, run: Run) -> Report:
    """Run all loads, one after the other, and report."""
    known = facts(server)
    seconds, sweep_s = QUICK if run.quick else FULL
    asked_for = {peer.name for peer in run.peers}
    peers = [peer for peer in named([NATIVE, OURS]) if peer.name in asked_for]
    rows = [_row(server, Load(peer, MAX_WAITING, SERVICE_S, seconds)) for peer in peers]
    ours = [peer for peer in peers if peer.name == OURS]
    swept = [
        _row(server, Load(peer, queue, service_s, sweep_s))
        for peer in ours
        for service_s in (SERVICE_S, SLOW_S)[: 1 if run.quick else None]
        for queue in QUEUES[: 1 if run.quick else None]
    ]
    return Report(
        name="overload",
        how=HOW.format(threads=THREADS, times=TIMES, size=SIZE.max_size, timeout=TIMEOUT_S),
        facts=known,
        tables=[
            Table(SIDE_BY_SIDE.format(seconds=seconds, queue=MAX_WAITING), COLUMNS, rows),
            Table(SWEEP.format(seconds=sweep_s), COLUMNS, swept),
        ],
        budgets=_budgets(rows),
        notes=[CODEL],
    )


def _row(server: PostgresServer, load: Load) -> Row:
    peer = dataclasses.replace(load.peer, settings=lambda size: _settings(size, load.queue))
    with field(server, [peer], SIZE) as peers:
        answers = _ask(peers, load) if peers.running else None
        if answers is None:
            return {"peer": peer.name, ERROR: peers.errors[peer.name]}
    return _figures(load, *answers)


def _settings(size: PoolSize, queue: int) -> Mapping[str, Any]:
    pool = {"min_size": size.min_size, "max_size": size.max_size, "timeout": TIMEOUT_S}
    return {"OPTIONS": {"pool": {**pool, "max_waiting": queue}}}


def _ask(peers: Field, load: Load) -> tuple[float, Mapping[str, Any]] | None:
    """The capacity, in requests a second, and what became of ten times as many."""
    [process] = peers.running
    sql = f"SELECT 1 FROM pg_sleep({load.service_s})"
    busy = peers.ask(process, "overload.overload", threads=SIZE.max_size, per_second=0,
                     seconds=load.seconds * CAPACITY_SHARE, sql=sql)  # fmt: skip
    if busy is None:
        return None
    capacity = len(busy["served_ns"]) / busy["seconds"]
    overloaded = peers.ask(process, "overload.overload", threads=THREADS, sql=sql,
                           per_second=TIMES * capacity, seconds=load.seconds)  # fmt: skip
    return None if overloaded is None else (capacity, overloaded)


def _figures(load: Load, capacity: float, outcome: Mapping[str, Any]) -> Row:
    seconds = outcome["seconds"]
    served, refused, late = (outcome[key] for key in ("served_ns", "refused_ns", "late_ns"))
    row: dict[str, Cell] = {
        "peer": load.peer.name,
        "service_ms": load.service_s * 1e3,
        "queue": load.queue or "any",
        "capacity": capacity,
        "offered": (len(served) + len(refused) + len(late)) / seconds,
        "goodput": len(served) / seconds,
        "share": len(served) / seconds / capacity,
        "p50_ms": _ms(served, 0.5),
        "p99_ms": _ms(served, 0.99),
        "refused_ms": _ms(refused, 0.5),
        "late": len(late) / seconds,
    }
    return {**row, ERROR: outcome["other"][0]} if outcome["other"] else row


def _ms(times_ns: Sequence[int], share: float) -> float | None:
    return percentile(times_ns, share) / 1e6 if times_ns else None


def _budgets(rows: Sequence[Row]) -> list[Budget]:
    found = {str(row["peer"]): row for row in rows if ERROR not in row}
    ours, native = found.get(OURS, {}), found.get(NATIVE, {})
    bound_ms = 1.5e3 * (TIMEOUT_S + SERVICE_S)
    shares = ratio(_number(ours, "share"), _number(native, "share"))
    return [
        Budget("our goodput / capacity", _number(ours, "share"), 0.8, at_least=True),
        Budget("our p99 of the served, ms", _number(ours, "p99_ms"), bound_ms),
        Budget("our refusals' median, ms", _number(ours, "refused_ms"), 50),
        Budget("our share of the capacity / native's", shares, 0.95, at_least=True),
    ]


def _number(row: Row, key: str) -> float | None:
    value = row.get(key)
    return value if isinstance(value, int | float) else None


if __name__ == "__main__":
    main(measure, "Throughput and waiting time when far more is asked than can be served.")
