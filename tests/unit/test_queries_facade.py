"""`pool.queries` and the journal that it reads."""

import gc
import weakref

from django_psycopg_pooled.integration.queries import Queries
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.statements.journal import Journal
from django_psycopg_pooled.testing.manual import ManualClock


def test_what_nobody_needs_goes_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        journal = Journal(ManualClock())
        queries = Queries("default", journal, PoolOptions(), ManualClock())
        gone = weakref.ref(queries), weakref.ref(journal)
        del queries, journal
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_a_journal_outlives_its_reader() -> None:
    journal = Journal(ManualClock())
    Queries("default", journal, PoolOptions(), ManualClock())
    journal.fold()
    journal.slow(None, None)  # type: ignore[arg-type]
