"""The session of a connection whose cursors watch it."""

from typing import Any

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.drivers.protocol import OPEN_TRANSACTION, Driver, TransactionStatus
from django_psycopg_pooled.execution.comments import Commenter
from django_psycopg_pooled.preparing.preparer import AsItIs, Preparer
from django_psycopg_pooled.session import Effect, Session
from django_psycopg_pooled.statements.book import Book, Record
from django_psycopg_pooled.statements.fingerprint import fingerprint
from django_psycopg_pooled.statements.journal import FOLD_AT, Execution, Journal
from django_psycopg_pooled.tracking.labels import current

now = SYSTEM_CLOCK.monotonic

# After these what is prepared may be gone, or be about another table than its text is now. The
# server plans anew when the search path changes, not when a temporary table hides a permanent one.
_DOUBTFUL = int(Effect.LASTING | Effect.TEMPORARY)
READ_ONLY = "25006"  # read_only_sql_transaction


class WatchedSession(Session):
    """A Session with what its cursors need: the book of statements, the journal, the driver."""

    __slots__ = (
        "_driver",
        "behind_pooler",
        "book",
        "commenter",
        "doing",
        "journal",
        "prepared",
        "preparer",
        "unit",
    )

    def __init__(
        self,
        book: Book,
        driver: Driver,
        journal: Journal | None,
        preparer: Preparer,
        commenter: Commenter | None = None,
    ) -> None:
        super().__init__()
        self.book = book
        # Where executions are written down; None if nowhere.
        self.journal = journal
        # Executes the statements whose record has a plan.
        self.preparer: Preparer | AsItIs = preparer
        # What it has prepared here.
        self.prepared = preparer.holdings()
        # Stands for the loan where the journal knows no request or task.
        self.unit: object = None
        # Puts comments to statements; None if nobody does.
        self.commenter = commenter
        # The record of the last statement.
        self.doing: Record | None = None
        # Whether a pooler keeps its clients apart from the ends of the server's processes.
        self.behind_pooler = False
        self._driver = driver

    def before(self, connection: Any, effects: int) -> None:
        """A statement with these *effects* is about to run, or the session is dirty already."""
        if effects & _DOUBTFUL and self.prepared:
            # Also by DISCARD ALL in a hook for the reset, where the connection stays.
            self.prepared.doubt_all()
        status = self._driver.status(connection)
        idle = status is TransactionStatus.IDLE
        if idle:
            self.settle()  # a transaction that left traces has ended without our seeing how
        inside = status in OPEN_TRANSACTION
        # Outside autocommit the driver begins a transaction with this very statement.
        self.note(effects, in_transaction=inside or (idle and not connection.autocommit))

    def temporary_goes(self) -> None:
        self.prepared.doubt_all()

    def failed(self, connection: Any, error: BaseException) -> str:
        """A statement has raised *error*; its SQLSTATE, or the name of its class if it has none."""
        code = self._driver.sqlstate(error)
        broken = self._driver.status(connection) is TransactionStatus.UNKNOWN
        if broken:
            self.quiet_s = self.began - self.ended  # which is of the statement before
        if code is None:
            if broken and not self.behind_pooler and isinstance(error, self._driver.Error):
                # It broke in use. If a process of the server has died, the server is about to end
                # all others, and those answer for a moment still. A pooler ends a client for its
                # own limits, too; psycopg2 gives no code then.
                self.dirt |= Effect.OUSTED
            return type(error).__name__
        # A borrower may have asked for a transaction that only reads.
        if code.startswith(self.evict_on) and (
            code != READ_ONLY or self._driver.serves_reads_only(connection)
        ):
            self.dirt |= Effect.OUSTED
        return code

    def said(self) -> str:
        return "" if self.doing is None else fingerprint(self.doing.sql)

    def ran(
        self,
        record: Record,
        params: Any,
        elapsed: float,
        rows: int,
        failure: str | None,
        prepared: bool,
    ) -> None:
        """A statement has run, or failed: write it down. On the path of every statement."""
        journal, work, stack = self.journal, current(), self.last
        if journal is None or stack is None:  # a cursor that has outlived its loan has no stack
            return
        mark = None
        if params is not None:  # not left to the except, which takes 0.5 us
            try:
                mark = hash(params if type(params) is tuple else tuple(params))
            except Exception:  # what a parameter's own __hash__ raises is nobody's concern
                mark = None  # they cannot be told apart
        trail = journal.trail
        execution = (
            record, work or self.unit, work, stack[0],
            elapsed, rows, self.waited, mark, failure, prepared,
        )  # fmt: skip
        self.waited = 0.0
        trail.append(execution)
        try:
            if elapsed >= journal.slow_after:
                journal.slow(Execution._make(execution), stack)
            if len(trail) >= FOLD_AT:
                journal.full()
        except Exception as error:
            journal.failed(error)
