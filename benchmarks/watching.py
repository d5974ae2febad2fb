"""What watching statements costs: ours switched on and off, and the tools that people have for it.

Each peer keeps one connection. What is added is a peer's time less that of the peer beneath it in
the same round: of our backend with its watching switched off, or of Django's without any tool.
`--peers` says nothing here.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.command import Run, main
from benchmarks.cycle import one_core
from benchmarks.facts import facts
from benchmarks.field import Field
from benchmarks.figures import percentile
from benchmarks.peers import STOCK, Driver, Peer, PoolSize, Settings
from benchmarks.process import PeerError, PeerProcess
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, Column, Row, Table
from devtools.postgres import PostgresServer

SIZE = PoolSize(1, 1)
STATEMENTS = 20  # in a request
BUDGET_US, BUDGET_SHARE = 3, 0.05
FASTEST = 0.1


@dataclass(frozen=True)
class Watcher:
    """One way to watch, or not to.

    tool      what the process puts in place; empty for none
    beneath   the peer that does the same without it; empty if it is one of these
    requests  it watches nothing outside requests
    """

    peer: Peer
    tool: str = ""
    beneath: str = ""
    requests: bool = False

    @property
    def database(self) -> str:
        """A database of its own: silk fills some tables there."""
        letters = (letter if letter.isalnum() else "_" for letter in self.peer.name)
        return f"watching_{''.join(letters)}"


def _options(size: PoolSize, pool: Settings | None) -> Settings:
    return {"CONN_MAX_AGE": None, "OPTIONS": {} if pool is None else {"pool": pool}}


def _peer(name: str, engine: str, pool: Settings | None = None) -> Peer:
    return Peer(name, engine, partial(_options, pool=pool), keeps=True)


PLAIN, OFF, ON = "stock", "ours, off", "ours"
OURS_ENGINE = "django_psycopg_pooled.backends.postgresql"
PLAINLY = {
    "prepare": False
}  # ours, off, cannot prepare: what that gains would hide what this costs
WATCHERS = (
    Watcher(_peer(PLAIN, STOCK)),
    Watcher(_peer(OFF, "benchmarks.unwatched", {"track_queries": False})),
    Watcher(
        _peer("ours, uncounted", OURS_ENGINE, {**PLAINLY, "track_queries": False}), beneath=OFF
    ),
    Watcher(_peer(ON, OURS_ENGINE, PLAINLY), beneath=OFF),
    Watcher(_peer("OpenTelemetry", STOCK), "opentelemetry", PLAIN),
    Watcher(_peer("debug toolbar", STOCK), "toolbar", PLAIN, requests=True),
    Watcher(_peer("silk", STOCK), "silk", PLAIN, requests=True),
)
CURSOR, REQUEST = "cursor", "request"
FULL, QUICK = (60, 10), (3, 1)  # rounds, and requests to warm up
PEOPLE = 1000
COLUMNS = (
    Column("peer", "peer"),
    Column("us", "us a statement", "{:,.0f}"),
    Column("added_us", "added us", "{:+,.1f}"),
    Column("share", "/ beneath", "{:.3f}"),
    Column("fastest_us", "fastest", "{:,.0f}"),
    Column("fastest_added_us", "added us", "{:+,.1f}"),
    Column("fastest_share", "/ beneath", "{:.3f}"),
    Column("seen", "seen"),
)
HOW = (
    "one thread, one connection a peer, client and server on one core; {rounds} rounds in turn of"
    " {statements} statements, each a get by pk of {people:,} rows. A figure is the median of the"
    " rounds. added: above 'ours, off' for ours, above stock for the others, in the same round."
    " fastest: the same from each peer's 10th percentile of the rounds."
    " seen: how many statements the tool says that it saw; a dash if it was not asked."
)
TITLES = {
    CURSOR: "By cursor: execute() and fetchall()",
    REQUEST: "A request of {statements} Model.objects.get(), called from 30 frames deep",
}
LEGEND = (
    "ours, off: nothing noted of any statement (benchmarks/unwatched). ours, uncounted:"
    " track_queries=False; lines of code and session state only. ours: the default, but that"
    " nothing is prepared. OpenTelemetry: its instrumentation of the driver, spans exported to"
    " nowhere. debug toolbar: its SQL panel, recorded, no page made. silk: its middleware, which"
    " saves all in the database."
)

Times = Mapping[str, Mapping[str, Sequence[float]]]  # us a statement, by level and peer


def measure(server: PostgresServer, run: Run) -> Report:
    """Fill the tables, run all rounds, report both levels."""
    known = facts(server)
    rounds, warm_up = QUICK if run.quick else FULL
    with one_core(server), _running(server, run.driver) as peers:
        times = {level: _rounds(peers, level, rounds, warm_up) for level in TITLES}
        seen = _seen(peers)
        errors = dict(peers.errors)
    return Report(
        name=f"watching, {run.driver}",
        how=HOW.format(rounds=rounds, statements=STATEMENTS, people=PEOPLE),
        facts=known,
        tables=[
            Table(TITLES[level].format(statements=STATEMENTS), COLUMNS,
                  [_row(watcher, times[level], seen, errors) for watcher in _watchers(level)])
            for level in TITLES
        ],
        budgets=_budgets(times),
        notes=[LEGEND],
    )  # fmt: skip


@contextmanager
def _running(server: PostgresServer, driver: Driver) -> Iterator[Field]:
    with ExitStack() as stack:
        running, errors = [], {}
        for watcher in WATCHERS:
            server.create_database(watcher.database)
            address = server.django_settings(watcher.database)
            process = PeerProcess(watcher.peer, address, SIZE, driver)
            try:
                stack.enter_context(process)
                process.ask("prepared.filling.fill", people=PEOPLE, orders=1, jobs=1, pending=1)
                if watcher.tool:
                    process.ask("watching.use", tool=watcher.tool)
                running.append(process)
            except PeerError as error:
                errors[watcher.peer.name] = str(error)
        yield Field(running, errors)


def _watchers(level: str) -> Sequence[Watcher]:
    return [watcher for watcher in WATCHERS if level == REQUEST or not watcher.requests]


def _rounds(peers: Field, level: str, rounds: int, warm_up: int) -> Mapping[str, Sequence[float]]:
    times: dict[str, list[float]] = {watcher.peer.name: [] for watcher in _watchers(level)}
    for number, process in enumerate(peers.interleaved(warm_up + rounds)):
        if process.peer.name not in times:
            continue
        own = times[process.peer.name]
        first = number // len(peers.running) * STATEMENTS  # the same for all in a round
        took = peers.ask(process, f"watching.by_{level}", first=first, statements=STATEMENTS)
        if took is not None:
            own.append(took / STATEMENTS / 1e3)
    return {name: own[warm_up:] for name, own in times.items()}


def _seen(peers: Field) -> Mapping[str, int]:
    tools = {watcher.peer.name for watcher in WATCHERS if watcher.tool}
    found = {process.peer.name: peers.ask(process, "watching.seen")
             for process in list(peers.running) if process.peer.name in tools}  # fmt: skip
    return {name: count for name, count in found.items() if count is not None}


def _added(watcher: Watcher, times: Mapping[str, Sequence[float]]) -> float | None:
    """What it adds to a statement of the peer beneath it, in us."""
    own, beneath = times.get(watcher.peer.name, ()), times.get(watcher.beneath, ())
    if not own or len(own) != len(beneath):
        return None
    return statistics.median([one - other for one, other in zip(own, beneath, strict=True)])


def _share(watcher: Watcher, times: Mapping[str, Sequence[float]]) -> float | None:
    added = _added(watcher, times)
    return None if added is None else added / statistics.median(times[watcher.beneath])


def _row(
    watcher: Watcher,
    times: Mapping[str, Sequence[float]],
    seen: Mapping[str, int],
    errors: Mapping[str, str],
) -> Row:
    name = watcher.peer.name
    if name in errors:
        return {"peer": name, ERROR: errors[name]}
    fastest = _fastest(times)
    return {
        "peer": name,
        "us": statistics.median(times[name]),
        "added_us": _added(watcher, times),
        "share": _share(watcher, times),
        "fastest_us": fastest[name][0],
        "fastest_added_us": _added(watcher, fastest),
        "fastest_share": _share(watcher, fastest),
        "seen": seen.get(name),
    }


def _fastest(times: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
    """One figure a peer, in place of a round: what it takes when nothing else is in its way."""
    return {name: [percentile(rounds, FASTEST)] for name, rounds in times.items() if rounds}


def _budgets(times: Times) -> list[Budget]:
    [ours] = [watcher for watcher in WATCHERS if watcher.peer.name == ON]
    cursor, request = (_fastest(times[level]) for level in (CURSOR, REQUEST))
    return [
        Budget("watching a statement, us", _added(ours, times[CURSOR]), BUDGET_US),
        Budget("watching a statement, fastest rounds, us", _added(ours, cursor), BUDGET_US),
        Budget("watching / get by pk", _share(ours, times[REQUEST]), BUDGET_SHARE),
        Budget("watching / get by pk, fastest rounds", _share(ours, request), BUDGET_SHARE),
    ]


if __name__ == "__main__":
    main(measure, "What watching statements costs.", drivers=("psycopg", "psycopg2"))
