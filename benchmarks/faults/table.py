"""The table: which faults there are, who takes part, what came out."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from benchmarks.command import Run
from benchmarks.facts import facts
from benchmarks.faults import scenarios
from benchmarks.faults.contenders import BY_TRANSACTION, Trial, contenders
from benchmarks.faults.exits import exits
from benchmarks.faults.grid import Grid, columns
from benchmarks.faults.outcomes import Outcome
from benchmarks.field import field
from benchmarks.peers import OURS, PoolSize
from benchmarks.process import PeerError, Stalled
from benchmarks.report import Budget, Report
from benchmarks.tables import Column, Row, Table
from devtools.postgres import PostgresServer


@dataclass(frozen=True)
class Fault:
    """One row.

    at_once   how many contenders meet it at the same time: all (0), if they only wait in it
    """

    name: str
    happen: Callable[[Trial], Outcome]
    at_once: int = 2


FAULTS: Sequence[Fault] = (
    Fault("session state left by SQL, 9 kinds, seen by the next borrower",
          scenarios.leftovers_in_session),
    Fault("attributes changed on the driver's connection",
          scenarios.leftovers_on_connection),
    Fault("fork() with idle connections: 3 children, 50 queries each", scenarios.fork),
    Fault("2 threads end without close(), pool of 2: the next request",
          scenarios.threads_that_end),
    Fault("threads interrupted in checkout and checkin, pool of 4", scenarios.interrupts),
    Fault("10 idle connections ended by the server: the next 10 requests",
          scenarios.ended_by_the_server),
    Fault("pool exhausted: does the error name the line that holds it?",
          scenarios.exhausted, at_once=0),
    Fault("pool of 1, 20 threads: query, 200 ms pause, query; all done after",
          scenarios.pauses, at_once=1),
    Fault("failover: sessions of a read-only server; failed of the next 10 writes",
          scenarios.read_only),
    Fault("a firewall forgets the idle connections: the next request",
          scenarios.blackholed, at_once=0),
    Fault("the program ends with its pool open: exit above stock's, stderr", exits, at_once=1),
)  # fmt: skip
COUNTS = (
    Column("peer", "counted"),
    Column("leaks", "leaks"),
    Column("foreign_rows", "foreign rows"),
    Column("lost_slots", "lost slots"),
    Column("failed", "failed requests"),
    Column("hangs", "hangs"),
)
NOTE = 150  # characters of a note
HOW = (
    "A process of its own for each cell, with the pool's size, {timeout:g} s of time-out where that"
    " can be set, and default options beside; the rows of ended connections, of pauses and of the"
    " firewall have the default time-out. In the firewall's row ours checks what was idle for"
    " 0.15 s instead of 30 s{quick}. 'hangs': killed when it had not answered at the limit."
)
QUICK = ", and a check may take 1 s instead of 5 s"

Outcomes = Mapping[str, Mapping[str, Outcome]]  # by fault, by contender


def measure(server: PostgresServer, run: Run) -> Report:
    """Let all contenders meet all faults, and report."""
    known = facts(server)
    with field(server, contenders(run), PoolSize(1, 1), run.driver) as found:
        peers = [process.peer for process in found.running]
        errors = found.errors
    trials = [Trial(server, peer, run.driver, run.quick) for peer in peers]
    outcomes = {fault.name: _meet(fault, trials) for fault in FAULTS}
    names = [peer.name for peer in peers]
    return Report(
        "faults",
        HOW.format(timeout=scenarios.timeout(run.quick), quick=QUICK if run.quick else ""),
        known,
        [*_grids(outcomes, names), _counts(outcomes, names)],
        _budgets(outcomes, names),
        [f"{name} does not run: {error}" for name, error in errors.items()] + _notes(outcomes),
    )


def _meet(fault: Fault, trials: Sequence[Trial]) -> Mapping[str, Outcome]:
    if not trials:
        return {}
    with ThreadPoolExecutor(fault.at_once or len(trials)) as threads:
        outcomes = threads.map(lambda trial: _outcome(fault, trial), trials)
        return {trial.peer.name: found for trial, found in zip(trials, outcomes, strict=True)}


def _outcome(fault: Fault, trial: Trial) -> Outcome:
    try:
        return fault.happen(trial)
    except Stalled:
        return Outcome("hangs", hangs=1)
    except (PeerError, RuntimeError) as error:
        return Outcome("breaks", failed=1, note=str(error))


def _grids(outcomes: Outcomes, names: Sequence[str]) -> list[Table]:
    """All in one but ours by transaction, for which there is no room beside them."""
    rows = [_row(fault, found) for fault, found in outcomes.items()]
    beside = [name for name in names if name != BY_TRANSACTION]
    grids: list[Table] = [Grid("What happens when ...", columns("", beside), rows)]
    if BY_TRANSACTION in names:
        ours = [name for name in names if name in (OURS, BY_TRANSACTION)]
        grids.append(Grid("Ours, and ours with release='transaction'", columns("", ours), rows))
    return grids


def _row(fault: str, found: Mapping[str, Outcome]) -> Row:
    return {"what": fault, **{name: outcome.text for name, outcome in found.items()}}


def _counts(outcomes: Outcomes, names: Sequence[str]) -> Table:
    rows: list[Row] = [{"peer": name, **_total(outcomes, name)} for name in names]
    return Table("All faults together", COUNTS, rows)


def _total(outcomes: Outcomes, name: str) -> dict[str, int]:
    each = [asdict(found[name]) for found in outcomes.values()]
    return {column.key: sum(one[column.key] for one in each) for column in COUNTS[1:]}


def _notes(outcomes: Outcomes) -> list[str]:
    """What was said beside the cells, by row; those who said the same together."""
    notes = []
    for number, found in enumerate(outcomes.values(), 1):
        said = [outcome.note for outcome in found.values() if outcome.note]
        for note in dict.fromkeys(said):
            names = ", ".join(name for name, outcome in found.items() if outcome.note == note)
            notes.append(f"Row {number}, {names}: {textwrap.shorten(note, NOTE)}")
    return notes


def _budgets(outcomes: Outcomes, names: Sequence[str]) -> list[Budget]:
    totals = [_total(outcomes, name) for name in names if name in (OURS, BY_TRANSACTION)]
    return [
        Budget(f"ours: {column.title}", max((one[column.key] for one in totals), default=None), 0)
        for column in COUNTS[1:]
        if column.key != "failed"  # one write tells us of a failover
    ]
