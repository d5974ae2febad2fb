"""What a session writes down of its statements must never harm them."""

from django_psycopg_pooled.execution.statements import Statements
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.statements.book import Record
from django_psycopg_pooled.testing import ManualClock, ScriptedDriver
from tests.unit.scripted_binding import ScriptedBinding


def test_a_cursor_that_outlives_its_loan_runs_uncounted_and_unharmed() -> None:
    """The next checkout has begun while its statement was running."""
    clock = ManualClock()
    statements = Statements("shop", ScriptedDriver(), ScriptedBinding(clock), PoolOptions())
    session = statements.session()
    assert session.last is None
    session.ran(Record("SELECT 1"), None, 0.001, 1, None, False)
    assert statements.journal is not None
    assert not statements.journal.trail
