"""Leaving a connection as it was lent, whatever its borrower has done to it."""

from django_psycopg_pooled.drivers.protocol import OPEN_TRANSACTION, TransactionStatus
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.resets import EVERYTHING, UNDOABLE, reset_sql
from django_psycopg_pooled.session import Effect


class Untidy(Exception):
    """A returned connection that must be closed; the text says what it did."""


class Hygiene:
    """Judges and cleans what borrowers of one pool give back. Fails closed: in doubt, it must go.

    Source: that a session is reset only if something has dirtied it is Kääriäinen's idea of 2012,
    and HikariCP's dirty bits.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def clean(self, entry: Entry) -> None:
        """Bring the connection back to where it was lent. Blocks for round trips, if any.

        Raises Untidy, or what the driver or the user's hook raises, if it must be closed.
        """
        core, connection, session = self._core, entry.connection, entry.session
        if core.driver.status(connection) is TransactionStatus.ACTIVE:
            raise Untidy("was given back in the middle of a statement")
        if core.driver.is_held(connection):
            raise Untidy("was given back while an iterator over it was not at its end")
        with core.watchdog.over(connection, core.options.check_timeout):
            if core.options.on_checkin is not None:
                core.options.on_checkin(connection)
            self._end_transaction(entry)
            if not core.driver.is_tidy(connection, session.shape):
                core.driver.reshape(connection, session.shape)
            left = session.leftovers()
            if left & (Effect.LASTING | Effect.OUSTED):
                raise Untidy("had its session changed in a way that no reset undoes")
            self._reset(entry, left)
        if not session.unread and not core.driver.is_tidy(connection, session.shape):
            raise Untidy("was left by `reset` with a transaction open, or autocommit off")
        session.dirt = 0

    def finish(self, entry: Entry) -> None:
        """Read the answer to a reset that was sent when the connection was given back.

        Blocks only if the answer has not come yet. Raises what the driver raises.
        """
        core = self._core
        entry.session.unread = False
        with core.watchdog.over(entry.connection, core.options.check_timeout):
            core.driver.finish_reset(entry.connection)

    def _end_transaction(self, entry: Entry) -> None:
        core, connection = self._core, entry.connection
        was_open = core.driver.status(connection) in OPEN_TRANSACTION
        core.driver.tidy(connection)
        if was_open:
            entry.session.rolled_back()

    def _reset(self, entry: Entry, left: int) -> None:
        how = self._core.options.reset
        if callable(how):
            how(entry.connection)
        elif how == "always":
            self._undo(entry, EVERYTHING)
        elif how == "dirty" and left & UNDOABLE:
            self._undo(entry, left)

    def _undo(self, entry: Entry, effects: int) -> None:
        core, connection, session = self._core, entry.connection, entry.session
        again = effects & (session.own | Effect.SETTINGS | Effect.ROLE)
        if again:  # what set the session up would be undone by half, and is done again
            effects |= session.own
        session.unread = core.driver.reset(connection, reset_sql(effects))
        if not again:
            return
        entry.announced = False  # to the receivers of connection_created, which set it up, too
        for restore in (core.restorer(), core.options.configure):
            if restore is not None:
                if session.unread:
                    self.finish(entry)
                restore(connection)
