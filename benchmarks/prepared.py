"""What preparing statements gains: SQL and ORM, near the server and 1 ms away, skewed data too.

Each peer keeps one connection: what is measured is the statement. Ratios are between the times that
two peers took for the same operations in the same round. `--peers` says nothing here.
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
from benchmarks.tables import ERROR, Cell, Column, Row, Table
from devtools.postgres import PostgresServer
from devtools.proxy import TcpProxy

DATABASE = "bench_prepared"
OURS_ENGINE = "django_psycopg_pooled.backends.postgresql"
SIZE = PoolSize(1, 1)
DELAY_S = 0.001
RARE_SHARE = 0.1
LEVELS = ("SQL", "ORM")


@dataclass(frozen=True)
class Length:
    """How much is measured."""

    rounds: int
    operations: int  # of each workload, level and peer in a round
    warm_up: int
    jobs: int
    pending: int
    starts: int  # of the skewed run, which begins with processes that know nothing
    calls: int


FULL = Length(15, 60, 150, jobs=500_000, pending=500, starts=3, calls=3000)
QUICK = Length(2, 3, 10, jobs=2_000, pending=20, starts=1, calls=30)
FAR_ROUNDS, FAR_OPERATIONS = 6, 20  # through the slow link; at most


def _options(size: PoolSize, options: Settings) -> Settings:
    return {"CONN_MAX_AGE": None, "OPTIONS": options}


def _peer(name: str, engine: str, **options: object) -> Peer:
    return Peer(name, engine, partial(_options, options=options), keeps=True)


PLAIN, SERVER_SIDE, THRESHOLD = "stock", "server binding", "threshold=0"
UNPREPARED, OURS = "ours, off", "ours"
PEERS: Mapping[Driver, Sequence[Peer]] = {
    "psycopg": (
        _peer(PLAIN, STOCK),
        _peer(SERVER_SIDE, STOCK, server_side_binding=True),
        _peer(THRESHOLD, STOCK, server_side_binding=True, prepare_threshold=0),
        _peer(UNPREPARED, OURS_ENGINE, pool={"prepare": False}),
        _peer(OURS, OURS_ENGINE, pool={"prepare": "auto"}),
    ),
    "psycopg2": (
        _peer(PLAIN, STOCK),
        _peer(UNPREPARED, OURS_ENGINE, pool={"prepare": False}),
        _peer(OURS, OURS_ENGINE, pool={"prepare": "auto"}),
    ),
}
WORKLOADS = (
    "get by pk",
    "2 joins",
    "7 joins",
    "4 joins, values_list",
    "aggregate over 4 joins",
    "IN list of 1 to 150",
    "update",
    "insert",
    "500 rows",
)
# How many times faster than stock, near the server.
BUDGETS: Mapping[Driver, Mapping[tuple[str, str], float]] = {
    "psycopg": {
        ("SQL", "7 joins"): 9,
        ("SQL", "4 joins, values_list"): 8,
        ("SQL", "get by pk"): 1.3,
        ("SQL", "IN list of 1 to 150"): 1.8,
        ("ORM", "7 joins"): 2.2,
        ("ORM", "4 joins, values_list"): 2.3,
        ("ORM", "get by pk"): 1.2,
    },
    "psycopg2": {
        ("SQL", "7 joins"): 8,
        ("SQL", "4 joins, values_list"): 8,
        ("SQL", "get by pk"): 1.0,
        ("SQL", "IN list of 1 to 150"): 1.8,
        ("ORM", "7 joins"): 2.2,
        ("ORM", "4 joins, values_list"): 2.3,
        ("ORM", "get by pk"): 1.2,
    },
}
SKEWED_BUDGET = 1.1
LEGEND = (
    "stock: Django's backend, whose driver puts parameters into the text. server binding:"
    " OPTIONS['server_side_binding']. threshold=0: that with psycopg's prepare_threshold=0, so that"
    " psycopg prepares everything. ours, off: prepare=False. ours: prepare='auto'."
)
SKEWED_COLUMNS = (
    Column("peer", "peer"),
    Column("total_ms", "all calls ms", "{:,.0f}"),
    Column("x_stock", "/ stock", "{:.2f}"),
    Column("median_us", "median us", "{:,.0f}"),
    Column("worst_ms", "worst ms", "{:,.1f}"),
)
SKEWED = (
    "Skewed: the first ten pending or done jobs of {jobs:,}, of which the last {pending} are"
    " pending; {share:.0%} of {calls} calls ask for pending; median of {starts} runs, each from a"
    " session's first statement on"
)

Key = tuple[str, str]  # level, workload
Times = Mapping[Key, Mapping[str, Sequence[float]]]  # us an operation, one a round, by peer


def measure(server: PostgresServer, run: Run) -> Report:
    """Fill the tables, run all rounds near and far, then the skewed runs."""
    known = facts(server)
    length = QUICK if run.quick else FULL
    errors: dict[str, str] = {}
    _fill(server, run.driver, length)
    with one_core(server):
        near = _near(server, run.driver, length, errors)
        skewed = _skewed(server, run.driver, length, errors)
    far = _far(server, run.driver, length, errors)
    title = SKEWED.format(jobs=length.jobs, pending=length.pending, share=RARE_SHARE,
                          calls=length.calls, starts=length.starts)  # fmt: skip
    return Report(
        name=f"prepared, {run.driver}",
        how=_how(length),
        facts=known,
        tables=[
            *(_table(f"{level}, near: times faster than stock", near, level, run.driver)
              for level in LEVELS),
            *(_table(f"{level}, 1 ms away: times faster than stock", far, level, run.driver)
              for level in LEVELS),
            Table(title, SKEWED_COLUMNS, _skewed_rows(skewed, errors)),
        ],
        budgets=_budgets(near, skewed, run.driver),
        notes=[LEGEND, *(f"{name}: {error}" for name, error in errors.items())],
    )  # fmt: skip


def _fill(server: PostgresServer, driver: Driver, length: Length) -> None:
    server.create_database(DATABASE)
    with PeerProcess(PEERS[driver][0], server.django_settings(DATABASE), SIZE, driver) as process:
        process.ask("prepared.filling.fill", people=20_000, orders=50_000,
                    jobs=length.jobs, pending=length.pending)  # fmt: skip


@contextmanager
def _running(
    server: PostgresServer, driver: Driver, errors: dict[str, str], port: int | None = None
) -> Iterator[Field]:
    """All peers on the one database, which none of them changes in a way that another notices."""
    more = {} if port is None else {"PORT": str(port)}
    with ExitStack() as stack:
        running = []
        for peer in PEERS[driver]:
            process = PeerProcess(peer, server.django_settings(DATABASE, **more), SIZE, driver)
            try:
                running.append(stack.enter_context(process))
            except PeerError as error:
                errors[peer.name] = str(error)
        started = Field(running, {})
        yield started
        errors |= started.errors


def _near(server: PostgresServer, driver: Driver, length: Length, errors: dict[str, str]) -> Times:
    with _running(server, driver, errors) as peers:
        return _rounds(peers, length.rounds, length.operations, length.warm_up)


def _far(server: PostgresServer, driver: Driver, length: Length, errors: dict[str, str]) -> Times:
    with (
        TcpProxy(server.host, server.port, way_delay_s=DELAY_S) as proxy,
        _running(server, driver, errors, proxy.port) as peers,
    ):
        rounds = min(length.rounds, FAR_ROUNDS)
        return _rounds(peers, rounds, min(length.operations, FAR_OPERATIONS), length.warm_up)


def _rounds(peers: Field, rounds: int, operations: int, warm_up: int) -> Times:
    keys = [(level, name) for level in LEVELS for name in WORKLOADS]
    times: dict[Key, dict[str, list[float]]] = {
        key: {process.peer.name: [] for process in peers.running} for key in keys
    }
    for level, name in keys:
        for process in peers.interleaved(1):
            _run(peers, process, (level, name), 0, warm_up)
        for process in peers.interleaved(rounds):
            own = times[level, name][process.peer.name]
            first = warm_up + len(own) * operations  # the same operations for all in a round
            took = _run(peers, process, (level, name), first, operations)
            if took is not None:
                own.append(took / operations / 1e3)
    return times


def _run(peers: Field, process: PeerProcess, key: Key, first: int, operations: int) -> float | None:
    level, name = key
    took: float | None = peers.ask(process, "prepared.timing.run", name=name, level=level,
                                   first=first, operations=operations)  # fmt: skip
    return took


def _skewed(
    server: PostgresServer, driver: Driver, length: Length, errors: dict[str, str]
) -> Mapping[str, Sequence[Sequence[int]]]:
    """The nanoseconds of each call, by peer and start."""
    found: dict[str, list[Sequence[int]]] = {peer.name: [] for peer in PEERS[driver]}
    for number in range(length.starts):
        with _running(server, driver, errors) as peers:
            first = number % max(1, len(peers.running))
            for process in peers.running[first:] + peers.running[:first]:
                times = peers.ask(process, "prepared.timing.run_skewed", calls=length.calls,
                                  rare_share=RARE_SHARE)  # fmt: skip
                if times is not None:
                    found[process.peer.name].append(times)
    return found


def _speed_up(times: Times, key: Key, name: str) -> float | None:
    """How many times faster than stock, by the median of the rounds."""
    stock, own = times[key].get(PLAIN, ()), times[key].get(name, ())
    if not stock or len(stock) != len(own):
        return None
    return statistics.median([one / other for one, other in zip(stock, own, strict=True)])


def _table(title: str, times: Times, level: str, driver: Driver) -> Table:
    names = [peer.name for peer in PEERS[driver]]
    columns = [
        Column("work", "statement"),
        Column("us", "stock us", "{:,.0f}"),
        *(Column(name, name, "{:.2f}") for name in names if name != PLAIN),
        Column("ours_us", "ours us", "{:,.0f}"),
    ]
    rows: list[Row] = []
    for work in WORKLOADS:
        by_peer = times[level, work]
        row: dict[str, Cell] = {"work": work, "us": _median(by_peer.get(PLAIN, ()))}
        row |= {name: _speed_up(times, (level, work), name) for name in names if name != PLAIN}
        rows.append({**row, "ours_us": _median(by_peer.get(OURS, ()))})
    return Table(title, columns, rows)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _skewed_rows(
    skewed: Mapping[str, Sequence[Sequence[int]]], errors: Mapping[str, str]
) -> list[Row]:
    rows: list[Row] = []
    for name, runs in skewed.items():
        if name in errors or not runs:
            rows.append({"peer": name, ERROR: errors.get(name, "did not run")})
            continue
        rows.append({
            "peer": name,
            "total_ms": statistics.median([sum(times) for times in runs]) / 1e6,
            "x_stock": _slower(skewed, name),
            "median_us": statistics.median([percentile(times, 0.5) for times in runs]) / 1e3,
            "worst_ms": statistics.median([max(times) for times in runs]) / 1e6,
        })  # fmt: skip
    return rows


def _slower(skewed: Mapping[str, Sequence[Sequence[int]]], name: str) -> float | None:
    """Its whole runs / stock's, by the median of the starts."""
    stock, own = skewed[PLAIN], skewed[name]
    if not stock or len(stock) != len(own):
        return None
    pairs = zip(own, stock, strict=True)
    return statistics.median([sum(times) / sum(others) for times, others in pairs])


def _budgets(
    near: Times, skewed: Mapping[str, Sequence[Sequence[int]]], driver: Driver
) -> list[Budget]:
    return [
        *(
            Budget(f"{level}, {work}: times faster", _speed_up(near, (level, work), OURS), limit,
                   at_least=True)
            for (level, work), limit in BUDGETS[driver].items()
        ),
        Budget("skewed: ours / stock", _slower(skewed, OURS), SKEWED_BUDGET),
    ]  # fmt: skip


def _how(length: Length) -> str:
    return (
        f"one thread, one connection a peer; {length.rounds} rounds in turn of {length.operations}"
        f" operations after {length.warm_up} to warm up (far: at most {FAR_ROUNDS} of"
        f" {FAR_OPERATIONS}); near: TCP, client and server on one core. SQL: cursor, execute(),"
        " fetchall() of what the ORM sends. A figure is the median of the rounds' ratios."
    )


if __name__ == "__main__":
    main(measure, "What preparing statements gains.", drivers=("psycopg", "psycopg2"))
