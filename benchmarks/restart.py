"""The first requests after the server has ended all connections: failures and time, by peer.

A peer that has not got through its requests after a few seconds is stopped and put off: all such
are run again at the same time, each with longer to answer, so that the slowest do not add up.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.command import Run, main
from benchmarks.facts import facts
from benchmarks.field import address, database_of, make_databases
from benchmarks.peers import LEGEND, OURS, Peer, PoolSize
from benchmarks.process import PeerError, PeerProcess, Stalled
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, Column, Row, Table
from devtools.postgres import PostgresServer

SIZES, QUICK_SIZES = (10, 50, 100), (5,)


@dataclass(frozen=True)
class Patience:
    """No request begins later than begin_s; the last one may take until answer_s."""

    begin_s: float
    answer_s: float


BRIEF = Patience(2, 2.5)
LONG = Patience(20, 60)  # psycopg_pool's own time-out is 30 s


@dataclass(frozen=True)
class Outcome:
    """What became of one peer's requests after its idle connections were ended."""

    connections: int
    asked: int
    failed: int
    first_ms: float
    slowest_ms: float
    first_error: str | None

    @classmethod
    def of(cls, connections: int, answer: Mapping[str, Any]) -> "Outcome":
        """From what the task told."""
        times, errors = answer["times_ms"], answer["errors"]
        first_error = errors[0] if errors else None
        return cls(connections, len(times), len(errors), times[0], max(times), first_error)


@dataclass(frozen=True)
class Trial:
    """One peer with so many idle connections."""

    peer: Peer
    connections: int


@dataclass(frozen=True)
class Fall:
    """A way for connections to end."""

    title: str
    happen: Callable[[PostgresServer, Sequence[Trial]], None]


def _terminate(server: PostgresServer, trials: Sequence[Trial]) -> None:
    for name in {database_of(trial.peer) for trial in trials}:
        server.terminate_backends(name)


FALLS = (
    Fall("backends terminated", _terminate),
    Fall("server restarted", lambda server, trials: server.restart()),
)


@dataclass(frozen=True)
class NoOutcome:
    """Why there are no figures: the peer's error, or it was not through in time."""

    error: str
    stalled: bool = False


Outcomes = dict[Trial, Outcome | NoOutcome]

COLUMNS = (
    Column("peer", "peer"),
    Column("connections", "connections"),
    Column("asked", "requests"),
    Column("failed", "failed"),
    Column("first_ms", "first ms", "{:,.1f}"),
    Column("slowest_ms", "slowest ms", "{:,.1f}"),
)
HOW = (
    "So many idle connections are ended by the server; then as many requests one after the other,"
    " each with close_old_connections() before and after, as Django's handlers do."
    " {brief:.0f} s for all of them; who needs longer is run again and begins no request after"
    " {long:.0f} s."
)


def measure(server: PostgresServer, run: Run) -> Report:
    """Run both falls and report."""
    known = facts(server)
    make_databases(server, run.peers)
    sizes = QUICK_SIZES if run.quick else SIZES
    trials = [Trial(peer, size) for peer in run.peers for size in sizes]
    tables, budgets, notes = [], [], [LEGEND]
    for fall in FALLS:
        outcomes = _outcomes(server, fall, trials, again=not run.quick)
        tables.append(Table(fall.title, COLUMNS, _rows(outcomes)))
        budgets += _budgets(fall, outcomes)
        notes += [note for note in _notes(outcomes) if note not in notes]
    how = HOW.format(brief=BRIEF.begin_s, long=LONG.begin_s)
    return Report("restart", how, known, tables, budgets, notes)


def _outcomes(server: PostgresServer, fall: Fall, trials: Sequence[Trial], again: bool) -> Outcomes:
    """Each trial's outcome: one after the other, then the stalled ones all at once."""
    outcomes: Outcomes = {}
    for trial in trials:
        known = _broken(trial.peer, outcomes)
        outcomes |= {trial: known} if known else _try(server, fall, [trial], BRIEF)
    stalled = [trial for trial, outcome in outcomes.items() if _is_stalled(outcome)]
    return outcomes | _try(server, fall, stalled, LONG) if stalled and again else outcomes


def _broken(peer: Peer, outcomes: Outcomes) -> NoOutcome | None:
    """This peer's error, if it failed with another number of connections: it would again."""
    found = [outcome for trial, outcome in outcomes.items() if trial.peer is peer]
    errors = [one for one in found if isinstance(one, NoOutcome) and not one.stalled]
    return errors[0] if errors else None


def _is_stalled(outcome: Outcome | NoOutcome) -> bool:
    return isinstance(outcome, NoOutcome) and outcome.stalled


def _try(
    server: PostgresServer, fall: Fall, trials: Sequence[Trial], patience: Patience
) -> Outcomes:
    """Warm all, let it happen, then ask all at the same time."""
    outcomes: Outcomes = {}
    with contextlib.ExitStack() as stack:
        processes: dict[Trial, PeerProcess] = {}
        for trial in trials:
            try:
                processes[trial] = stack.enter_context(_warmed(server, trial))
            except PeerError as error:
                outcomes[trial] = NoOutcome(str(error))
        fall.happen(server, trials)
        with ThreadPoolExecutor(len(trials)) as threads:
            asked = {
                trial: threads.submit(_ask, process, trial, patience)
                for trial, process in processes.items()
            }
            return outcomes | {trial: answer.result() for trial, answer in asked.items()}


@contextlib.contextmanager
def _warmed(server: PostgresServer, trial: Trial) -> Iterator[PeerProcess]:
    """The peer's process with its connections open and idle."""
    size = PoolSize(trial.connections, trial.connections)
    with PeerProcess(trial.peer, address(server, trial.peer), size) as process:
        process.ask("restart.warm", connections=trial.connections)
        yield process


def _ask(process: PeerProcess, trial: Trial, patience: Patience) -> Outcome | NoOutcome:
    try:
        answer = process.ask(
            "restart.requests",
            patience.answer_s,
            count=trial.connections,
            limit_s=patience.begin_s,
        )
    except PeerError as error:
        return NoOutcome(str(error), stalled=isinstance(error, Stalled))
    return Outcome.of(trial.connections, answer)


def _row(trial: Trial, outcome: Outcome | NoOutcome) -> Row:
    row: Row = {"peer": trial.peer.name, "connections": trial.connections}
    if isinstance(outcome, NoOutcome):
        return {**row, ERROR: outcome.error}
    return {**row, **asdict(outcome)}


def _rows(outcomes: Outcomes) -> list[Row]:
    """A row a trial; a peer that does not work at all gets one."""
    rows: dict[tuple[str, int], Row] = {}
    for trial, outcome in outcomes.items():
        broken = isinstance(outcome, NoOutcome) and not outcome.stalled
        rows.setdefault((trial.peer.name, 0 if broken else trial.connections), _row(trial, outcome))
    return list(rows.values())


def _notes(outcomes: Outcomes) -> list[str]:
    """The first error of each peer that failed requests."""
    errors = {
        trial.peer.name: outcome.first_error
        for trial, outcome in outcomes.items()
        if isinstance(outcome, Outcome) and outcome.first_error
    }
    return [f"{name} failed with {error}" for name, error in errors.items()]


def _budgets(fall: Fall, outcomes: Outcomes) -> list[Budget]:
    ours = [
        outcome
        for trial, outcome in outcomes.items()
        if trial.peer.name == OURS and isinstance(outcome, Outcome)
    ]
    failed = max((one.failed for one in ours), default=None)
    first = max((one.first_ms for one in ours), default=None)
    return [
        Budget(f"{fall.title}: our failed requests at any size", failed, 0),
        Budget(f"{fall.title}: our first request at any size, ms", first, 100),
    ]


if __name__ == "__main__":
    main(measure, "The first requests after the server has ended all connections.")
