"""What one checkout and checkin cost: `SELECT 1` and close() in one thread, peer by peer.

The overhead is what a peer's operation takes longer than the never-closed connection's in the
same round; ratios are between overheads.
"""

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.command import Run, main
from benchmarks.facts import facts
from benchmarks.field import Field, field
from benchmarks.figures import percentile, ratio
from benchmarks.peers import (
    LEGEND,
    NATIVE,
    NATIVE_CHECKED,
    OURS,
    PERSISTENT,
    UNWATCHED,
    Peer,
    PoolSize,
)
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, Column, Row, Table
from devtools.postgres import PostgresServer


@dataclass(frozen=True)
class Length:
    """How much is measured: a round ends after so many operations or seconds."""

    starts: int
    rounds: int  # after each start
    operations: int
    seconds: float


# Many short rounds: whatever else the machine does, then disturbs neighbouring peers alike.
# Several starts: how a process lies in memory is a matter of luck.
FULL, QUICK = Length(5, 15, 250, 0.05), Length(1, 3, 50, 0.05)
FASTEST = 0.1
CYCLE = "cycle.cycle"
SIZE = PoolSize(1, 4)
LENDING_US = 6
WATCHING_US = 6 + 3  # the loan, and its statement

Medians = Mapping[str, Sequence[float]]  # microseconds, one a round, by peer
Overheads = Mapping[str, float]  # microseconds above the persistent peer, by peer

ALL_ROUNDS = "All rounds. above: overhead above 'persistent' in the same round, also / native's"
FASTEST_ROUNDS = "Fastest rounds: the same from each peer's 10th percentile of the rounds"
PARTS = (
    "What ours is made of. lending: ours above 'persistent' with its watching switched off;"
    " watching: what it adds, for the lines of code of a loan and a statement, and for what the"
    " statement does to its session. Native watches nothing: lending compares with its overhead"
)

BY_NATIVE = (
    Column("x_native", "/ native", "{:.2f}"),
    Column("x_native_checked", "/ native+checks", "{:.2f}"),
)
COLUMNS = (
    Column("peer", "peer"),
    Column("median_us", "median us", "{:,.1f}"),
    Column("least_us", "min", "{:,.1f}"),
    Column("most_us", "max", "{:,.1f}"),
    Column("overhead_us", "above us", "{:+,.1f}"),
    *BY_NATIVE,
)
FASTEST_COLUMNS = (
    Column("peer", "peer"),
    Column("median_us", "us", "{:,.1f}"),
    Column("overhead_us", "above us", "{:+,.1f}"),
    *BY_NATIVE,
)
PART_COLUMNS = (
    Column("part", "part"),
    Column("us", "us", "{:.1f}"),
    *BY_NATIVE,
    Column("fastest_us", "fastest rounds us", "{:.1f}"),
    Column("fastest_x_native", "/ native", "{:.2f}"),
    Column("fastest_x_native_checked", "/ native+checks", "{:.2f}"),
)


def measure(server: PostgresServer, run: Run) -> Report:
    """Run all rounds and report."""
    known = facts(server)
    length = QUICK if run.quick else FULL
    chosen = _with_unwatched(run.peers)
    medians: dict[str, list[float]] = {peer.name: [] for peer in chosen}
    errors: dict[str, str] = {}
    for _ in range(length.starts):
        peers = [peer for peer in chosen if peer.name not in errors]
        with one_core(server), field(server, peers, SIZE, run.driver) as started:
            _collect(started, length, medians)
            errors |= started.errors
    medians = {name: rounds for name, rounds in medians.items() if name not in errors}
    names = [peer.name for peer in run.peers]
    compared = [name for name in names if name in medians]
    fastest = {name: [percentile(rounds, FASTEST)] for name, rounds in medians.items()}
    return Report(
        name=f"cycle, {run.driver}",
        how=_how(length),
        facts=known,
        tables=[
            Table(ALL_ROUNDS, COLUMNS, _rows(names, medians, errors)),
            Table(FASTEST_ROUNDS, FASTEST_COLUMNS, _rows(compared, fastest, {})),
            Table(PARTS, PART_COLUMNS, _part_rows(_overheads(medians), _overheads(fastest))),
        ],
        budgets=_budgets(_overheads(medians), "")
        + _budgets(_overheads(fastest), ", fastest rounds"),
        notes=[LEGEND],
    )


@contextmanager
def one_core(server: PostgresServer) -> Iterator[None]:
    """Have what is started in the block, and the server's new processes, share one core.

    Left to the system, whether a client and its server process do so is luck that lasts for long,
    and makes twice the time.
    """
    if not hasattr(os, "sched_setaffinity"):  # only Linux has it
        yield
        return
    cores = os.sched_getaffinity(0)
    try:
        for pid in (0, server.pid):
            os.sched_setaffinity(pid, {min(cores)})
        yield
    finally:
        for pid in (0, server.pid):
            os.sched_setaffinity(pid, cores)


def _with_unwatched(peers: Sequence[Peer]) -> Sequence[Peer]:
    """Beside ours, ours without what it watches: the two have budgets of their own."""
    ours = any(peer.name == OURS for peer in peers)
    return (*peers, UNWATCHED) if ours else peers


def _collect(peers: Field, length: Length, medians: dict[str, list[float]]) -> None:
    """Add each round's median for each peer."""
    for process in peers.interleaved(length.rounds):
        times = peers.ask(process, CYCLE, operations=length.operations, seconds=length.seconds)
        if times is not None:
            medians[process.peer.name].append(statistics.median(times) / 1e3)


def _overheads(medians: Medians) -> Overheads:
    """The median, over the rounds, of what each peer took longer than the persistent one."""
    base = medians.get(PERSISTENT)
    if base is None:
        return {}
    return {
        name: statistics.median([one - other for one, other in zip(rounds, base, strict=True)])
        for name, rounds in medians.items()
        if name != PERSISTENT
    }


def _rows(names: Sequence[str], medians: Medians, errors: Mapping[str, str]) -> list[Row]:
    overheads = _overheads(medians)
    return [
        {"peer": name, ERROR: errors[name]}
        if name in errors
        else {"peer": name, **_figures(medians[name]), **_by_native(name, overheads)}
        for name in names
    ]


def _figures(rounds: Sequence[float]) -> Row:
    return {
        "median_us": statistics.median(rounds),
        "least_us": min(rounds),
        "most_us": max(rounds),
    }


def _by_native(name: str, overheads: Overheads) -> Row:
    own = overheads.get(name)
    return {"overhead_us": own, **_ratios(own, overheads)}


def _ratios(us: float | None, overheads: Overheads) -> dict[str, float | None]:
    return {
        "x_native": ratio(us, overheads.get(NATIVE)),
        "x_native_checked": ratio(us, overheads.get(NATIVE_CHECKED)),
    }


def _parts(overheads: Overheads) -> tuple[float | None, float | None]:
    """What lending costs, and what watching adds to it."""
    ours, lending = overheads.get(OURS), overheads.get(UNWATCHED.name)
    return lending, None if ours is None or lending is None else ours - lending


def _part_rows(overheads: Overheads, fastest: Overheads) -> list[Row]:
    figures = zip(("lending", "watching"), _parts(overheads), _parts(fastest), strict=True)
    return [
        {
            "part": part,
            "us": us,
            **_ratios(us, overheads),
            "fastest_us": least,
            **{f"fastest_{name}": value for name, value in _ratios(least, fastest).items()},
        }
        for part, us, least in figures
    ]


def _budgets(overheads: Overheads, when: str) -> list[Budget]:
    lending, watching = _parts(overheads)
    ratios = _ratios(lending, overheads)
    return [
        Budget(f"lending{when}, us", lending, LENDING_US),
        Budget(f"lending / native's{when}", ratios["x_native"], 0.3),
        Budget(f"lending / native+checks'{when}", ratios["x_native_checked"], 0.12),
        Budget(f"watching a loan of one statement{when}, us", watching, WATCHING_US),
    ]


def _how(length: Length) -> str:
    return (
        f"cursor, SELECT 1, fetchone(), connection.close() in one thread over TCP with SCRAM,"
        " client and server on one core;"
        f" {length.starts} starts of {length.rounds} rounds in turn of {length.operations}"
        f" operations (a round ends early after {length.seconds} s); a figure is the median of the"
        " rounds' medians."
    )


if __name__ == "__main__":
    main(measure, "The cost of one checkout and checkin.", drivers=("psycopg", "psycopg2"))
