"""What happens when ...: ours leaks nothing, hands out no foreign row and loses no slot (issue 3).

One quick run of benchmarks.faults for all tests here; PAINS 1, 4, 5, 11, 14, 21, 23, 24 and 26.
"""

from collections.abc import Iterator

import pytest
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from benchmarks import command
from benchmarks.command import Run
from benchmarks.faults import measure, scenarios
from benchmarks.faults.contenders import BY_TRANSACTION, Trial, with_options
from benchmarks.faults.table import FAULTS
from benchmarks.field import make_databases
from benchmarks.peers import OURS, Driver, named
from benchmarks.report import Report
from benchmarks.tables import WIDTH, Row
from devtools.postgres import PostgresServer

DRIVER: Driver = "psycopg" if is_psycopg3 else "psycopg2"
BOTH = [OURS, BY_TRANSACTION]


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """Not the shared one: its sessions are ended and its databases made read-only."""
    with command.server() as started:
        yield started


@pytest.fixture(scope="module")
def report(own_server: PostgresServer) -> Report:
    return measure(own_server, Run(peers=named([OURS]), quick=True, driver=DRIVER))


def counts(report: Report, name: str) -> Row:
    """The last table's row of this contender."""
    [row] = [row for row in report.tables[-1].rows if row["peer"] == name]
    return row


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("what", ["leaks", "foreign_rows", "lost_slots", "hangs"])
def test_ours_comes_through_all_faults_without(report: Report, name: str, what: str) -> None:
    assert counts(report, name)[what] == 0, report.text()


@pytest.mark.parametrize("name", BOTH)
def test_the_table_has_a_word_for_each_fault(report: Report, name: str) -> None:
    cells = [row.get(name) for row in report.tables[1].rows]
    assert len(cells) == len(FAULTS)
    assert all(cells), report.text()
    assert "breaks" not in cells, report.text()
    assert all(len(line) <= WIDTH for line in report.text().splitlines())


def test_what_a_pool_leaves_in_the_session_is_counted(own_server: PostgresServer) -> None:
    [ours] = named([OURS])
    make_databases(own_server, [ours])
    trial = Trial(own_server, with_options(ours, {"reset": "never"}), DRIVER, quick=True)
    assert scenarios.leftovers_in_session(trial).leaks == 9


def test_rows_and_hangs_of_children_and_their_parent_are_counted() -> None:
    children = [
        {"answers": [["ok", ""], ["foreign", "('x',)"]], "late": False, "signal": 0},
        {"answers": [["error", "no"]], "late": True, "signal": 9},
    ]
    outcome = scenarios.of_family(children, parent=None)
    assert outcome.text == "1 foreign row, 1 error, 1 hanging child, the parent hangs"
    assert (outcome.foreign_rows, outcome.failed, outcome.hangs) == (1, 1, 2)
