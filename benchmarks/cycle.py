"""What one checkout and checkin cost: `SELECT 1` and close() in one thread, peer by peer.

The overhead is what a peer's operation takes longer than the never-closed connection's in the
same round; ratios are between overheads.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.command import Run, main
from benchmarks.facts import facts
from benchmarks.field import Field, field
from benchmarks.figures import Spread, ratio
from benchmarks.peers import LEGEND, NATIVE, NATIVE_CHECKED, OURS, PERSISTENT, PoolSize
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, Column, Row, Table
from devtools.postgres import PostgresServer


@dataclass(frozen=True)
class Length:
    """How much is measured: a round ends after so many operations or seconds."""

    rounds: int
    operations: int
    seconds: float


FULL, QUICK = Length(40, 1000, 0.25), Length(3, 50, 0.05)
CYCLE = "cycle.cycle"
SIZE = PoolSize(1, 4)

TITLE = (
    "Time of one operation; above: overhead above 'persistent', also / native's, / native+checks'"
)
Medians = Mapping[str, Sequence[float]]  # microseconds, one a round, by peer

COLUMNS = (
    Column("peer", "peer"),
    Column("median_us", "median us", "{:,.1f}"),
    Column("least_us", "min", "{:,.1f}"),
    Column("most_us", "max", "{:,.1f}"),
    Column("overhead_us", "above us", "{:+,.1f}"),
    Column("overhead_least_us", "min", "{:+,.1f}"),
    Column("overhead_most_us", "max", "{:+,.1f}"),
    Column("x_native", "/ native", "{:.2f}"),
    Column("x_native_checked", "/ checks", "{:.2f}"),
)


def measure(server: PostgresServer, run: Run) -> Report:
    """Run all rounds and report."""
    known = facts(server)
    length = QUICK if run.quick else FULL
    with field(server, run.peers, SIZE, run.driver) as peers:
        medians = _medians(peers, length)
        errors = dict(peers.errors)
    overheads = {name: _overhead(medians, name) for name in medians}
    rows = [_row(peer.name, medians, overheads, errors) for peer in run.peers]
    return Report(
        name=f"cycle, {run.driver}",
        how=_how(length),
        facts=known,
        tables=[Table(TITLE, COLUMNS, rows)],
        budgets=_budgets(overheads),
        notes=[LEGEND],
    )


def _medians(peers: Field, length: Length) -> dict[str, list[float]]:
    """Each round's median for each peer; a peer that fails underway is left out."""
    medians: dict[str, list[float]] = {process.peer.name: [] for process in peers.running}
    for process in peers.interleaved(length.rounds):
        times = peers.ask(process, CYCLE, operations=length.operations, seconds=length.seconds)
        if times is not None:
            medians[process.peer.name].append(statistics.median(times) / 1e3)
    return {name: rounds for name, rounds in medians.items() if name not in peers.errors}


def _overhead(medians: Medians, name: str) -> Spread | None:
    """The spread of this peer's overhead, round by round; None without the persistent peer."""
    if PERSISTENT not in medians:
        return None
    pairs = zip(medians[name], medians[PERSISTENT], strict=True)
    return Spread.of([peer - persistent for peer, persistent in pairs])


def _row(
    name: str,
    medians: Medians,
    overheads: Mapping[str, Spread | None],
    errors: Mapping[str, str],
) -> Row:
    if name in errors:
        return {"peer": name, ERROR: errors[name]}
    whole, overhead = Spread.of(medians[name]), overheads[name]
    row: dict[str, float | str | None] = {
        "peer": name,
        "median_us": whole.median,
        "least_us": whole.least,
        "most_us": whole.most,
    }
    if overhead is not None and name != PERSISTENT:
        row |= {
            "overhead_us": overhead.median,
            "overhead_least_us": overhead.least,
            "overhead_most_us": overhead.most,
            "x_native": ratio(overhead.median, _median(overheads, NATIVE)),
            "x_native_checked": ratio(overhead.median, _median(overheads, NATIVE_CHECKED)),
        }
    return row


def _median(overheads: Mapping[str, Spread | None], name: str) -> float | None:
    spread = overheads.get(name)
    return None if spread is None else spread.median


def _budgets(overheads: Mapping[str, Spread | None]) -> list[Budget]:
    ours = _median(overheads, OURS)
    native = _median(overheads, NATIVE)
    checked = _median(overheads, NATIVE_CHECKED)
    return [
        Budget("our overhead above persistent, us", ours, 6),
        Budget("our overhead / native's", ratio(ours, native), 0.3),
        Budget("our overhead / native+checks'", ratio(ours, checked), 0.12),
    ]


def _how(length: Length) -> str:
    return (
        f"cursor, SELECT 1, fetchone(), connection.close() in one thread over TCP with SCRAM;"
        f" {length.rounds} rounds in turn of {length.operations} operations (a round ends early"
        f" after {length.seconds} s); a figure is the median of the rounds' medians."
    )


if __name__ == "__main__":
    main(measure, "The cost of one checkout and checkin.", drivers=("psycopg", "psycopg2"))
