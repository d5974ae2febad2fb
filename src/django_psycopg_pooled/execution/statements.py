"""All that one pool knows of its statements, put together."""

from django_psycopg_pooled.clock import SYSTEM_CLOCK, Clock
from django_psycopg_pooled.drivers.preparing import Binding
from django_psycopg_pooled.drivers.protocol import Driver
from django_psycopg_pooled.execution.comments import Commenter
from django_psycopg_pooled.execution.watched import WatchedSession
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.preparing.preparer import Preparer
from django_psycopg_pooled.statements.book import Book
from django_psycopg_pooled.statements.fingerprint import fingerprint
from django_psycopg_pooled.statements.journal import Journal


class Statements:
    """The book, the journal and the preparer of one pool; lives as long as it.

    book       one record a text, found by each execution
    journal    what they have cost; None with track_queries=False
    preparer   which of them run prepared
    """

    def __init__(
        self,
        name: str,
        driver: Driver,
        binding: Binding,
        options: PoolOptions,
        framework: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._driver = driver
        self.preparer = Preparer(
            binding,
            name=name,
            mode=options.preparing,
            threshold=options.prepare_threshold,
            prepared_max=options.prepared_max,
            shown=fingerprint,
            clock=clock,
        )
        self.book = Book(plan_for=self.preparer.plan_for)
        self.preparer.book = self.book
        self.journal = Journal(clock) if options.track_queries else None
        self._commenter = Commenter(framework) if options.sqlcommenter else None

    def session(self) -> WatchedSession:
        """The session of a new connection."""
        return WatchedSession(self.book, self._driver, self.journal, self.preparer, self._commenter)
