"""Giving the connection back between transactions: the option release="transaction"."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.base import CursorDebugWrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.guards import bound
from django_psycopg_pooled.integration.open_cursors import (
    OpenCursor,
    ReleasingCursor,
    ReleasingDebugCursor,
    forgetting,
)
from django_psycopg_pooled.integration.pool_finder import FindsPool
from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.session import Effect

# All but what no later statement could miss.
TRACES = ~int(Effect.OUSTED)


class EnsureConnection:
    """The method of stock that stands in its class when it is asked for.

    Whoever patches that class, and calls from there what was in its place, must not end here again.
    """

    def __get__(self, wrapper: "EarlyRelease | None", owner: type[Any]) -> Callable[..., None]:
        if wrapper is None:
            return BaseDatabaseWrapper.ensure_connection
        stock = bound(BaseDatabaseWrapper, "ensure_connection", wrapper)
        return stock if wrapper._releases_early is False else partial(wrapper._ensure, stock)


class EarlyRelease(FindsPool):
    """The part of a wrapper that gives back what no transaction and no open cursor needs.

    Steps aside, but for a look at a flag, unless the pool's option says "transaction". What keeps a
    connection until close(): a transaction, a driver's cursor that is neither closed nor gone,
    traces in the session or on the driver's connection, pool.pin(), and ensure_connection() or
    connect() called by anybody but Django's cursors and transactions: whoever does that wants
    `connection.connection` itself.
    """

    _lease: Lease | None = None
    _lender: Pool | None = None
    # Set by each connect(); None before the first.
    _releases_early: bool | None = None
    _pinned = True
    _greeting: "_Greeting | None" = None  # of the present request, or of an earlier one
    _goes_on = False  # the next loan is for the same request as the last
    # Django's code is between borrowing and using: the collector may end a cursor just then.
    _entering = 0
    _asks_itself = False  # the next call of ensure_connection() is its own
    ensure_connection = EnsureConnection()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of all its loans: threads that share it, and the collector, add and discard at any line.
        self._open_cursors: set[OpenCursor] = set()
        self._forget_cursor = forgetting(self)

    def make_cursor(self, cursor: Any) -> Any:
        if not self._releases_early:
            return CursorWrapper(cursor, self)
        return ReleasingCursor(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> Any:
        if not self._releases_early:
            return CursorDebugWrapper(cursor, self)
        return ReleasingDebugCursor(cursor, self)

    def _cursor(self, name: str | None = None) -> Any:
        if self._releases_early is False:
            return super()._cursor(name)
        with self._borrowing():
            return super()._cursor(name)

    def get_autocommit(self) -> bool:
        if self._releases_early is False:
            return super().get_autocommit()
        if self._releases_early and self.connection is None and not self.in_atomic_block:
            return bool(self.settings_dict["AUTOCOMMIT"])  # what the next loan begins with
        with self._borrowing():
            autocommit = super().get_autocommit()
        self._release()  # transaction.on_commit() asks, and then runs what may take long
        return autocommit

    def set_autocommit(
        self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False
    ) -> None:
        if autocommit and self.connection is None and self._was_closed_in_between():
            self._begin_anew()
            return
        if self._releases_early is False:
            super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)
            return
        if (
            not autocommit
            or not self._releases_early
            or not self.run_commit_hooks_on_set_autocommit_on
            or self.connection is None
        ):
            self._switch(autocommit, force_begin_transaction_with_broken_autocommit)
            return
        self.run_commit_hooks_on_set_autocommit_on = False
        switched = False
        try:
            self._switch(autocommit, force_begin_transaction_with_broken_autocommit)
            switched = True
        finally:
            self.run_commit_hooks_on_set_autocommit_on = not switched
        self.run_and_clear_commit_hooks()  # holding nothing: they may take long

    def _switch(self, autocommit: bool, force_begin: bool) -> None:
        """Stock's set_autocommit(); whatever becomes of it, nothing is held that nobody needs."""
        try:
            with self._borrowing():
                super().set_autocommit(autocommit, force_begin)
        finally:
            self._release()

    def _was_closed_in_between(self) -> bool:
        """Whether close() has ended the loan in which autocommit was switched off.

        So does Django at the end of atomic(), if it finds the connection broken.
        """
        return (
            not self.autocommit
            and self._pool is not None
            and self._releases_early is not None
            and bool(self.settings_dict["AUTOCOMMIT"])
        )

    def _begin_anew(self) -> None:
        """Switch autocommit on for the next loan, which begins so.

        To borrow for that would have whoever leaves atomic() wait in an outage for the whole
        `timeout`, and would hide the exception that is on its way.
        """
        self.validate_no_atomic_block()
        self.autocommit = True
        self.run_on_commit = []
        self.run_commit_hooks_on_set_autocommit_on = False

    def _ensure(self, stock: Callable[[], None]) -> None:
        own, self._asks_itself = self._asks_itself, False
        stock()
        if not own and self._releases_early:
            self._pinned = True

    def close(self) -> None:
        self._goes_on = False
        super().close()

    def close_if_unusable_or_obsolete(self) -> None:
        self._goes_on = False  # a request has ended, most often without a connection to close
        super().close_if_unusable_or_obsolete()

    def _greet_session(self, lease: Lease) -> None:
        """Send connection_created if this server session has not had it: what it did stays."""
        entry, session = lease.entry, lease.entry.session
        if entry.announced:
            return
        dirt = session.dirt
        self._take_back(lease)
        entry.announced = True  # now: a receiver may come here again
        heard = False
        try:
            connection_created.send(sender=self.__class__, connection=self)
            heard = True
        finally:
            entry.announced = heard
        if self._has(lease, entry):
            session.set_up(dirt)
            session.shape = session.shape.grown(lease.connection)

    def _greet_loan(self, lease: Lease) -> None:
        """Send connection_created once a request; again for a session without what it registers.

        What receivers register stays on the driver's connection between the request's loans. The
        next request that meets it there takes it away: it may be a tenant's.
        """
        goes_on, self._goes_on = self._goes_on, False
        entry, session = lease.entry, lease.entry.session
        greeting = self._greeting
        if greeting is None or not goes_on:
            self._greeting = greeting = _Greeting()
        elif session.shape.greeter is greeting:
            return
        self._take_back(lease)
        if goes_on and not greeting.registers:
            return
        connection_created.send(sender=self.__class__, connection=self)
        if not self._has(lease, entry):
            return
        grown = session.shape.grown(lease.connection)
        if grown is not session.shape:
            grown.greeter, greeting.registers = greeting, True
            session.shape = grown

    def _take_back(self, lease: Lease) -> None:
        """Take from the driver's connection what receivers have registered on it."""
        entry = lease.entry
        entry.session.shape = entry.session.shape.shrunk(lease.connection)
        entry.announced = False

    def _has(self, lease: Lease, entry: Entry) -> bool:
        """Whether this is its loan still: a receiver may have closed the connection."""
        return self._lease is lease and lease.entry is entry

    @contextmanager
    def _borrowing(self) -> Iterator[None]:
        """Around what borrows for one statement or transaction only."""
        borrows = self.connection is None
        self._entering += 1
        self._asks_itself = True
        try:
            yield
        finally:
            self._asks_itself = False
            self._entering -= 1
            if borrows:
                self._pinned = False

    def _cursor_closed(self, cursor: OpenCursor) -> None:
        self._open_cursors.discard(cursor)
        lease = self._lease
        if lease is not None and cursor.loan is lease.ref:
            self._release()

    def _is_read(self, lease: Lease) -> bool:
        """Whether a cursor of this loan is open."""
        # copy() alone is never interrupted by the collector, which may discard from the set.
        return any(cursor.loan is lease.ref for cursor in self._open_cursors.copy())

    def _release(self) -> None:
        """Give the connection back if nothing needs it. Blocks as Pool.checkin() does."""
        lease, lender = self._lease, self._lender
        if (
            not self._releases_early
            or lease is None
            or lender is None
            or (self._open_cursors and self._is_read(lease))
            or self._entering
            or self._pinned
            or self.in_atomic_block
            or not self.autocommit
            or self.connection is not lease.connection
            or self._thread_ident != threading.get_ident()
            or lender.pinned
            or lease.entry.session.dirt & TRACES
            or not _is_free(lease)
        ):
            return
        self._lease = self._lender = self.connection = None
        self._goes_on = True
        lender.checkin(lease)


def _is_free(lease: Lease) -> bool:
    """Whether the next statement can do without this very connection."""
    if DRIVER.is_tidy(lease.connection, lease.entry.session.shape):
        return True
    # A broken one is of no use. Any other has a transaction open, or was changed by its borrower.
    return DRIVER.status(lease.connection) is TransactionStatus.UNKNOWN


class _Greeting:
    """connection_created as one request has sent it; lives as long as what receivers registered."""

    __slots__ = ("registers",)

    def __init__(self) -> None:
        self.registers = False  # its receivers have registered something on a connection
