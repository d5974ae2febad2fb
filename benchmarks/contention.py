"""32 threads on 8 connections: throughput, waiting time and fairness, peer by peer."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.command import Run, main
from benchmarks.facts import facts
from benchmarks.field import Field, field
from benchmarks.figures import percentile, ratio
from benchmarks.peers import LEGEND, NATIVE, OURS, PoolSize
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, Cell, Column, Row, Table
from devtools.postgres import PostgresServer

THREADS = 32
SIZE = PoolSize(8, 8)
FULL, QUICK = (16, 0.5), (2, 0.15)  # rounds, seconds a round


@dataclass(frozen=True)
class Round:
    """One round of one peer."""

    per_second: float
    p50_ms: float
    p99_ms: float
    fairness: float

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Round":
        """From what the task told."""
        served, times = answer["served"], answer["times_ns"]
        return cls(
            per_second=len(times) / answer["seconds"],
            p50_ms=percentile(times, 0.50) / 1e6,
            p99_ms=percentile(times, 0.99) / 1e6,
            fairness=min(served) / max(served),
        )


Rounds = Mapping[str, Sequence[Round]]

COLUMNS = (
    Column("peer", "peer"),
    Column("per_second", "op/s", "{:,.0f}"),
    Column("per_second_least", "min", "{:,.0f}"),
    Column("per_second_most", "max", "{:,.0f}"),
    Column("p50_ms", "p50 ms", "{:.2f}"),
    Column("p99_ms", "p99 ms", "{:.2f}"),
    Column("fairness", "fairness", "{:.2f}"),
    Column("fairness_least", "min", "{:.2f}"),
    Column("x_per_second", "op/s / native", "{:.2f}"),
    Column("x_p99", "p99 / native", "{:.2f}"),
)
TITLE = "Whole operations; fairness: served by the least served thread / by the most served one"
HOW = (
    "{threads} threads, pool of {size}; an operation is 1 ms in the server (pg_sleep) and close();"
    " {rounds} rounds in turn of {seconds} s; a figure is the median of the rounds. 'unpooled' and"
    " 'persistent' are not held to {size} connections: they use up to {threads}."
)


def measure(server: PostgresServer, run: Run) -> Report:
    """Run all rounds and report."""
    known = facts(server)
    number, seconds = QUICK if run.quick else FULL
    with field(server, run.peers, SIZE) as peers:
        rounds = _rounds(peers, number, seconds)
        errors = dict(peers.errors)
    rows = [_row(peer.name, rounds, errors) for peer in run.peers]
    how = HOW.format(threads=THREADS, size=SIZE.max_size, rounds=number, seconds=seconds)
    return Report(
        name="contention",
        how=how,
        facts=known,
        tables=[Table(TITLE, COLUMNS, rows)],
        budgets=_budgets(rounds),
        notes=[LEGEND],
    )


def _rounds(peers: Field, number: int, seconds: float) -> dict[str, list[Round]]:
    rounds: dict[str, list[Round]] = {process.peer.name: [] for process in peers.running}
    for process in peers.interleaved(number):
        answer = peers.ask(process, "contention.contend", threads=THREADS, seconds=seconds)
        if answer is not None:
            rounds[process.peer.name].append(Round.of(answer))
    return {name: found for name, found in rounds.items() if name not in peers.errors}


def _row(name: str, rounds: Rounds, errors: Mapping[str, str]) -> Row:
    if name in errors:
        return {"peer": name, ERROR: errors[name]}
    throughput = [one.per_second for one in rounds[name]]
    row: dict[str, Cell] = {
        "peer": name,
        "per_second": _median(rounds, name, "per_second"),
        "per_second_least": min(throughput),
        "per_second_most": max(throughput),
        "p50_ms": _median(rounds, name, "p50_ms"),
        "p99_ms": _median(rounds, name, "p99_ms"),
        "fairness": _median(rounds, name, "fairness"),
        "fairness_least": min(one.fairness for one in rounds[name]),
        "x_per_second": _by_native(rounds, name, "per_second"),
        "x_p99": _by_native(rounds, name, "p99_ms"),
    }
    return row


def _median(rounds: Rounds, name: str, figure: str) -> float | None:
    values = [getattr(one, figure) for one in rounds.get(name, ())]
    return statistics.median(values) if values else None


def _by_native(rounds: Rounds, name: str, figure: str) -> float | None:
    """The median over the rounds of this peer's figure / native's in the same round."""
    if name not in rounds or NATIVE not in rounds:
        return None
    pairs = zip(rounds[name], rounds[NATIVE], strict=True)
    ratios = [ratio(getattr(one, figure), getattr(other, figure)) for one, other in pairs]
    return statistics.median([found for found in ratios if found is not None])


def _budgets(rounds: Rounds) -> list[Budget]:
    fairness = _median(rounds, OURS, "fairness")
    return [
        Budget("our throughput / native's", _by_native(rounds, OURS, "per_second"), 1, True),
        Budget("our p99 / native's", _by_native(rounds, OURS, "p99_ms"), 1),
        Budget("our fairness", fairness, 0.9, at_least=True),
    ]


if __name__ == "__main__":
    main(measure, "Throughput, waiting time and fairness when threads outnumber connections.")
