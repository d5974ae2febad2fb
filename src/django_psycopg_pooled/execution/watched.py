"""The session of a connection whose cursors watch it."""

from typing import Any

from django_psycopg_pooled.drivers.protocol import OPEN_TRANSACTION, Driver, TransactionStatus
from django_psycopg_pooled.session import Effect, Session
from django_psycopg_pooled.statements.book import Book

READ_ONLY = "25006"  # read_only_sql_transaction


class WatchedSession(Session):
    """A Session with what its cursors need: the book of statements, and the driver."""

    __slots__ = ("_driver", "book")

    def __init__(self, book: Book, driver: Driver) -> None:
        super().__init__()
        self.book = book
        self._driver = driver

    def before(self, connection: Any, effects: int) -> None:
        """A statement with these *effects* is about to run, or the session is dirty already."""
        status = self._driver.status(connection)
        idle = status is TransactionStatus.IDLE
        if idle:
            self.settle()  # a transaction that left traces has ended without our seeing how
        inside = status in OPEN_TRANSACTION
        # Outside autocommit the driver begins a transaction with this very statement.
        self.note(effects, in_transaction=inside or (idle and not connection.autocommit))

    def failed(self, connection: Any, error: BaseException) -> None:
        """A statement has raised *error*."""
        code = self._driver.sqlstate(error)
        if code is None or not code.startswith(self.evict_on):
            return
        if code == READ_ONLY and not self._driver.serves_reads_only(connection):
            return  # the borrower asked for a transaction that only reads
        self.dirt |= Effect.OUSTED
