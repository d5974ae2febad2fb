"""psycopg 3. Imports it, so import this module only when it is the driver in use."""

from contextlib import suppress
from typing import Any

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.drivers.psycopg3_shape import Shape, compared, factories
from django_psycopg_pooled.drivers.refusals import (
    is_refusal,
    is_refused_option,
    is_still,
    is_wrong_password,
    says_read_only,
)
from django_psycopg_pooled.drivers.sockets import hang_up, lead_nowhere, watch_socket
from django_psycopg_pooled.session import ANYTHING, Session

CANCEL_S = 1.0

ENDED = psycopg.pq.PGconn.connect_start(b"=")  # no address, so it has no socket either
ENDED.finish()


class PoolTimeout(errors.PoolTimeout, psycopg.OperationalError):
    """No connection within the request's timeout."""


class TooManyRequests(errors.TooManyRequests, psycopg.OperationalError):
    """The queue is as long as `max_waiting` allows."""


class PoolClosed(errors.PoolClosed, psycopg.OperationalError):
    """The pool was closed before or while the request waited."""


class PsycopgDriver:
    """The adapter of psycopg 3; see drivers.protocol for what each method promises."""

    name = "psycopg"
    PoolTimeout = PoolTimeout
    TooManyRequests = TooManyRequests
    PoolClosed = PoolClosed
    Error = psycopg.Error

    def connect_params(self, params: dict[str, Any]) -> dict[str, Any]:
        return params

    def close(self, connection: Any) -> None:
        # psycopg raises only where the connection was broken before.
        if self.status(connection) is TransactionStatus.ACTIVE and self._works(connection):
            with suppress(psycopg.Error):
                # Else the server works on, and counts as one more session, until it has finished.
                connection.cancel_safe(timeout=CANCEL_S)
        with suppress(psycopg.Error):
            connection.close()

    def _works(self, connection: Any) -> bool:
        return not self.session(connection).unread

    def leave(self, connection: Any) -> None:
        pgconn = connection.pgconn
        with suppress(psycopg.Error):  # it is closed
            lead_nowhere(pgconn.socket)
        # Cursors that are open ask whether it is closed, and else try to tell the server. What is
        # the parent's is kept: its end would be a goodbye.
        connection._pool_parents = pgconn
        connection.pgconn = ENDED

    def watch(self, connection: Any) -> Watch:
        return watch_socket(connection.pgconn.socket)

    def session(self, connection: Any) -> Session:
        session: Session | None = getattr(connection, "_pool_session", None)
        if session is None:
            connection._pool_session = session = Session()
        return session

    def shape(self, connection: Any) -> Any:
        return Shape(connection)

    def is_tidy(self, connection: Any, shape: Any) -> bool:
        # On the path of every request: 0 is IDLE, and the enum would cost more than the rest.
        tidy: bool = (
            connection.pgconn.transaction_status == 0
            and not shape.touched
            and compared(connection) == shape.compared
            and not connection.lock.locked()
        )
        return tidy

    def is_held(self, connection: Any) -> bool:
        # As by notifies(). Whoever uses the connection next would wait for ever, here too.
        return bool(connection.lock.locked())

    def status(self, connection: Any) -> TransactionStatus:
        return TransactionStatus(int(connection.pgconn.transaction_status))

    def tidy(self, connection: Any) -> None:
        if self.status(connection) is not TransactionStatus.IDLE:
            connection.rollback()
        if connection.autocommit is not True:
            connection.autocommit = True

    def reshape(self, connection: Any, shape: Any) -> None:
        if factories(connection) != shape.factories:
            # What the borrower's own cursors executed was not noted.
            self.session(connection).note(int(ANYTHING), in_transaction=False)
        shape.restore(connection)

    def reset(self, connection: Any, sql: str) -> bool:
        pgconn = connection.pgconn
        pgconn.send_query(sql.encode())
        while pgconn.flush():
            pass  # a few hundred bytes: the socket takes them at once
        return True

    def finish_reset(self, connection: Any) -> None:
        with connection.lock:
            for result in connection.wait(generators.fetch_many(connection.pgconn)):
                if result.status == ExecStatus.FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result)
        # What a LISTEN has brought until now; older psycopg keep nothing.
        if backlog := getattr(connection, "_notifies_backlog", None):
            backlog.clear()

    def absorb(self, connection: Any) -> None:
        connection.pgconn.consume_input()

    def check(self, connection: Any) -> None:
        # An empty statement: no plan, no snapshot, no entry in pg_stat_statements.
        with connection.cursor() as cursor:
            cursor.execute("")
        if not is_still(self.session(connection).wanted, connection.info.parameter_status):
            raise psycopg.OperationalError("the server takes no writes any more")

    def hang_up(self, connection: Any) -> None:
        try:
            hang_up(connection.pgconn.socket)
        except psycopg.Error:
            return  # it is closed

    def server_pid(self, connection: Any) -> int:
        return int(connection.pgconn.backend_pid)

    def serves_reads_only(self, connection: Any) -> bool:
        return says_read_only(connection.info.parameter_status)

    def sqlstate(self, error: BaseException) -> str | None:
        return getattr(error, "sqlstate", None)

    def is_permanent(self, error: BaseException) -> bool:
        return not isinstance(error, psycopg.OperationalError) or is_refusal(error)

    def refuses_password(self, error: BaseException) -> bool:
        return is_wrong_password(error)

    def refuses_startup_options(self, error: BaseException) -> bool:
        return is_refused_option(error)
