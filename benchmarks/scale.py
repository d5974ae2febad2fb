"""How our pool's cost grows with connections and waiting threads, and what an idle one takes."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.command import Run, main
from benchmarks.facts import facts
from benchmarks.field import address, make_databases
from benchmarks.figures import ratio
from benchmarks.peers import LEGEND, OURS, PEERS, PERSISTENT, UNPOOLED, Peer, PoolSize
from benchmarks.process import PeerError, PeerProcess
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, Cell, Column, Row, Table
from devtools.postgres import PostgresServer

CONNECTIONS, QUICK_CONNECTIONS = (1, 10, 100, 1000), (1, 10)
WAITING, QUICK_WAITING = (1, 8, 32, 100, 200), (1, 8)
ROUNDS, QUICK_ROUNDS = 40, 2
OPERATIONS = 5000
HANDOVER_ROUNDS, HANDOVER_S, QUICK_HANDOVER_S = 5, 0.5, 0.05
IDLE, QUICK_IDLE = 200, 20
MEMORY_ROUNDS = 3
DRIVER = "driver alone"
BYTES_BUDGET = 2048

CYCLE_COLUMNS = (
    Column("connections", "connections"),
    Column("us", "us", "{:.2f}"),
    Column("least_us", "min", "{:.2f}"),
    Column("most_us", "max", "{:.2f}"),
    Column("x_first", "/ 1 connection", "{:.2f}"),
)
WAITING_COLUMNS = (
    Column("waiting", "waiting threads"),
    Column("us", "us", "{:.1f}"),
    Column("least_us", "min", "{:.1f}"),
    Column("most_us", "max", "{:.1f}"),
    Column("x_first", "/ 1 thread", "{:.2f}"),
    Column("fairness", "fairness", "{:.2f}"),
)
MEMORY_COLUMNS = (
    Column("peer", "peer"),
    Column("traced", "traced bytes", "{:,.0f}"),
    Column("traced_above", "above driver", "{:+,.0f}"),
    Column("rss", "RSS bytes", "{:,.0f}"),
    Column("rss_above", "above driver", "{:+,.0f}"),
)
HOW = (
    "Our pool alone with scripted connections (no server, no Django): one thread, all connections"
    " idle; then one connection and more threads than it can serve. Memory: real connections as"
    " Django opens them; traced is Python's own (tracemalloc), RSS is the process's."
)


def measure(server: PostgresServer, run: Run) -> Report:
    """Run all three parts and report."""
    known = facts(server)
    make_databases(server, PEERS)
    books = _books(server, run.quick)
    memory, budgets = _memory(server, run)
    return Report("scale", HOW, known, [*books, memory], budgets, [LEGEND])


def _books(server: PostgresServer, quick: bool) -> list[Table]:
    """What a checkout and checkin cost our pool by its size, and by who waits."""
    titles = (
        "One checkout and checkin, by connections in the pool",
        "One connection handed from thread to thread, by threads that wait for it",
    )
    [ours] = [peer for peer in PEERS if peer.name == OURS]
    with PeerProcess(ours, address(server, ours), PoolSize(0, 1)) as process:
        rows = [_or_error("connections", lambda: _cycle_rows(process, quick))]
        rows += [_or_error("waiting", lambda: _waiting_rows(process, quick))]
    columns = (CYCLE_COLUMNS, WAITING_COLUMNS)
    return [Table(*parts) for parts in zip(titles, columns, rows, strict=True)]


def _cycle_rows(process: PeerProcess, quick: bool) -> list[Row]:
    sizes = QUICK_CONNECTIONS if quick else CONNECTIONS
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for size in sizes:
            ns = process.ask("scale.cycles", connections=size, operations=OPERATIONS)
            found[size].append(ns / 1e3)
    return _spread_rows("connections", found)


def _waiting_rows(process: PeerProcess, quick: bool) -> list[Row]:
    counts = QUICK_WAITING if quick else WAITING
    seconds = QUICK_HANDOVER_S if quick else HANDOVER_S
    found: dict[int, list[float]] = {count: [] for count in counts}
    fairness: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(QUICK_ROUNDS if quick else HANDOVER_ROUNDS):
        for count in counts:
            answer = process.ask("scale.handovers", waiting=count, seconds=seconds)
            found[count].append(answer["us"])
            fairness[count].append(answer["fairness"])
    rows = _spread_rows("waiting", found)
    shares = [statistics.median(fairness[count]) for count in counts]
    return [{**row, "fairness": share} for row, share in zip(rows, shares, strict=True)]


def _spread_rows(key: str, found: dict[int, list[float]]) -> list[Row]:
    first = statistics.median(next(iter(found.values())))
    return [
        {
            key: size,
            "us": statistics.median(times),
            "least_us": min(times),
            "most_us": max(times),
            "x_first": ratio(statistics.median(times), first),
        }
        for size, times in found.items()
    ]


def _or_error(key: str, rows: Callable[[], list[Row]]) -> list[Row]:
    """The rows, or one that says why there are none."""
    try:
        return rows()
    except PeerError as error:
        return [{key: "-", ERROR: str(error)}]


def _memory(server: PostgresServer, run: Run) -> tuple[Table, list[Budget]]:
    """Bytes per idle connection, peer by peer; and whether ours keep to their budget."""
    count = QUICK_IDLE if run.quick else IDLE
    rounds = 1 if run.quick else MEMORY_ROUNDS
    pools = [peer for peer in run.peers if peer.name not in (UNPOOLED, PERSISTENT)]
    driver = _bytes(server, PEERS[0], "memory.driver_growth", count, rounds)
    rows: list[Row] = [{"peer": DRIVER, **driver}]
    for peer in pools:
        try:
            own = _bytes(server, peer, "memory.pool_growth", count, rounds)
            above = {f"{key}_above": own[key] - driver[key] for key in own}
            rows.append({"peer": peer.name, **own, **above})
        except PeerError as error:
            rows.append({"peer": peer.name, ERROR: str(error)})
    title = f"Bytes per idle connection, {count} connections"
    return Table(title, MEMORY_COLUMNS, rows), _budgets(rows)


def _bytes(
    server: PostgresServer, peer: Peer, task: str, count: int, rounds: int
) -> dict[str, float]:
    """Each figure in processes of its own: tracing takes memory that RSS would show."""
    return {
        key: statistics.median(
            [_bytes_once(server, peer, task, count, key == "traced") for _ in range(rounds)]
        )
        for key in ("traced", "rss")
    }


def _bytes_once(server: PostgresServer, peer: Peer, task: str, count: int, traced: bool) -> float:
    with PeerProcess(peer, address(server, peer), PoolSize(1, count)) as process:
        return float(process.ask(task, count=count, traced=traced))


def _budgets(rows: Sequence[Row]) -> list[Budget]:
    ours = {key: cell for row in rows if row["peer"] == OURS for key, cell in row.items()}
    return [
        Budget(
            "our bytes per idle connection above the driver's, traced",
            _number(ours, "traced_above"),
            BYTES_BUDGET,
        ),
        Budget(
            "our bytes per idle connection above the driver's, RSS",
            _number(ours, "rss_above"),
            BYTES_BUDGET,
        ),
    ]


def _number(row: Row, key: str) -> float | None:
    cell: Cell = row.get(key)
    return None if cell is None else float(cell)


if __name__ == "__main__":
    main(measure, "Cost by connections and by waiting threads; memory of idle connections.")
