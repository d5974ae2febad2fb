"""Telling which transaction it was that the server ended because it was idle for too long."""

import logging
from types import TracebackType
from typing import Any

from django.db.utils import DatabaseErrorWrapper

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.session import Session
from django_psycopg_pooled.tracking.stacks import place

logger = logging.getLogger(__name__)

IDLE_TOO_LONG = "25P03"  # idle_in_transaction_session_timeout
SLACK = 1.1  # the server's clock began a little sooner than ours


class NotingErrors(DatabaseErrorWrapper):
    """Django's, which turns a driver's exceptions into its own; adds a note to the driver's first.

    Lives as long as its wrapper. The exception's text stays the driver's.
    """

    wrapper: Any

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            return
        if isinstance(error, DRIVER.Error):
            try:
                _add_note(self.wrapper, error)
            except Exception:
                logger.exception("a note on an error failed")
        super().__exit__(kind, error, traceback)


def _add_note(wrapper: Any, error: BaseException) -> None:
    lease, lender = wrapper._lease, wrapper._lender
    if lease is None or DRIVER.status(lease.connection) is not TransactionStatus.UNKNOWN:
        return
    limit = lender.options.idle_in_transaction_timeout
    session = lease.entry.session
    idle = _idle_s(session, lender.idle_since(lease))
    told = DRIVER.sqlstate(error) == IDLE_TOO_LONG
    # psycopg2 reads no last words: it only knows that the server has closed the connection.
    if told or (DRIVER.sqlstate(error) is None and 0 < limit <= idle * SLACK):
        error.add_note(_text(session, idle, limit, told=told))


def _idle_s(session: Session, since: float | None) -> float:
    """For how long it was idle when it failed, as far as that is known; 0 if it is not.

    since   as the lookout saw it; None if it has not looked meanwhile
    """
    now = SYSTEM_CLOCK.monotonic()
    if since is None:
        return max(now - session.ended, session.quiet_s)
    return (session.began if session.began > since else now) - since


def _text(session: Session, idle: float, limit: float, *, told: bool) -> str:
    begun = f" begun at {place(session.transaction_stack)}" if session.transaction_stack else ""
    lasted = f"for {idle:.1f} s" if idle * SLACK >= max(limit, 0.1) else "for too long"
    whose = f" (idle_in_transaction_timeout is {limit:g} s)" if limit else ""
    ended = "so the server ended it" if told else "so the server has probably ended it"
    return f"The transaction{begun} was idle {lasted}, {ended}{whose}."
