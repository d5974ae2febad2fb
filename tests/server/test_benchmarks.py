"""Each benchmark runs and says what it should; how fast anything is, no test says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import command, contention, cycle, prepared, restart, scale, spike, watching
from benchmarks.command import Run
from benchmarks.peers import NATIVE, OURS, PEERS, PERSISTENT, UNPOOLED, named
from benchmarks.report import Budget, Report
from benchmarks.tables import ERROR, WIDTH
from devtools.postgres import PostgresServer

ROOT = Path(__file__).parent.parent.parent
ALWAYS_THERE = (UNPOOLED, PERSISTENT, NATIVE, OURS)  # the other peers may not be installed


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """Not the shared one: benchmarks restart theirs."""
    with command.server() as started:
        yield started


def quick(*names: str) -> Run:
    return Run(peers=named(names), quick=True)


def check(report: Report, figure: str, names: tuple[str, ...], *, table: int = 0) -> None:
    """The table has rows of these names with this figure, and all that is printed fits."""
    rows = report.tables[table].rows
    assert {row["peer"] for row in rows if figure in row and ERROR not in row} == set(names)
    assert all(len(line) <= WIDTH for line in report.text().splitlines())
    assert json.loads(report.as_json())["name"] == report.name
    assert report.facts["PostgreSQL"]


def test_contention_tells_throughput_and_fairness(own_server: PostgresServer) -> None:
    report = contention.measure(own_server, quick(*ALWAYS_THERE))
    check(report, "per_second", ALWAYS_THERE)
    check(report, "fairness", ALWAYS_THERE)


def test_spike_tells_when_all_were_served_in_each_case(own_server: PostgresServer) -> None:
    """PAINS 17."""
    report = spike.measure(own_server, quick(OURS))
    for table in range(len(spike.CASES)):
        check(report, "last_ms", (OURS,), table=table)
    assert [row["opened"] for row in report.tables[0].rows] == [20]


def test_restart_tells_failures_for_both_falls(own_server: PostgresServer) -> None:
    names = (PERSISTENT, OURS)
    report = restart.measure(own_server, quick(*names))
    for table in (0, 1):
        check(report, "first_ms", names, table=table)
    assert report.tables[0].rows[0]["failed"] == report.tables[0].rows[0]["connections"]


def test_scale_tells_time_by_size_and_bytes_by_peer(own_server: PostgresServer) -> None:
    report = scale.measure(own_server, quick(OURS))
    by_size, by_waiting, memory = report.tables
    assert [row["connections"] for row in by_size.rows if "us" in row] == [1, 10]
    assert [row["waiting"] for row in by_waiting.rows if "us" in row] == [1, 8]
    assert [row["peer"] for row in memory.rows if "rss" in row] == [scale.DRIVER, OURS]


def test_a_peer_that_does_not_work_gets_a_row_with_its_error(own_server: PostgresServer) -> None:
    run = Run(peers=named([PERSISTENT, NATIVE]), quick=True, driver="psycopg2")
    report = cycle.measure(own_server, run)
    check(report, "median_us", (PERSISTENT,))
    [native] = [row for row in report.tables[0].rows if row["peer"] == NATIVE]
    assert "ImproperlyConfigured" in str(native[ERROR])
    assert {budget.verdict for budget in report.budgets} == {"not measured"}


def test_the_command_prints_a_row_for_each_peer_and_writes_the_figures(tmp_path: Path) -> None:
    file = tmp_path / "cycle.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cycle", "--quick", "--json", file],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = json.loads(file.read_text())["tables"][0]["rows"]
    assert [row["peer"] for row in rows] == [peer.name for peer in PEERS]
    assert {row["peer"] for row in rows if "median_us" in row} >= set(ALWAYS_THERE)
    assert all(peer.name in done.stdout for peer in PEERS)


@pytest.mark.parametrize(
    ("measured", "at_least", "verdict"),
    [(6.0, False, "met"), (6.1, False, "missed"), (6.0, True, "met"), (None, True, "not measured")],
)
def test_a_budget_says_whether_it_is_met(
    measured: float | None, at_least: bool, verdict: str
) -> None:
    assert Budget("a promise", measured, 6, at_least).verdict == verdict


def test_prepared_tells_how_many_times_faster_each_statement_is(
    own_server: PostgresServer,
) -> None:
    report = prepared.measure(own_server, Run(peers=(), quick=True))
    assert len(report.tables) == 5
    for table in report.tables[:4]:
        assert [row["work"] for row in table.rows] == list(prepared.WORKLOADS)
        for peer in prepared.PEERS["psycopg"][1:]:
            assert all(row[peer.name] for row in table.rows), table.title
    check(report, "total_ms", tuple(peer.name for peer in prepared.PEERS["psycopg"]), table=4)
    assert "not measured" not in {budget.verdict for budget in report.budgets}


def test_watching_tells_what_ours_adds_and_what_tools_add(own_server: PostgresServer) -> None:
    report = watching.measure(own_server, Run(peers=(), quick=True))
    by_cursor, by_request = report.tables
    ours = {"ours, uncounted", "ours"}
    assert {row["peer"] for row in by_cursor.rows if row.get("added_us") is not None} >= ours
    for row in by_request.rows:  # tools may not be installed
        assert row.get(ERROR) or row["peer"] in ("stock", "ours, off") or row["added_us"]
        assert row.get("seen") != 0, row["peer"]
    assert "not measured" not in {budget.verdict for budget in report.budgets}
