"""psycopg2. Imports it, so import this module only when it is the driver in use."""

from contextlib import suppress
from typing import Any

import psycopg2
from psycopg2 import extensions

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.drivers.psycopg2_cancel import cancel_beside
from django_psycopg_pooled.drivers.psycopg2_room import with_room
from django_psycopg_pooled.drivers.psycopg2_shape import Shape, compared
from django_psycopg_pooled.drivers.refusals import (
    is_refusal,
    is_refused_option,
    is_still,
    is_wrong_password,
    says_read_only,
)
from django_psycopg_pooled.drivers.sockets import hang_up, lead_nowhere, watch_socket
from django_psycopg_pooled.session import Session

# What psycopg2 sends at connect where the server's default is another: it reads no other.
READABLE_DATES = "SET datestyle = 'ISO'"


class PoolTimeout(errors.PoolTimeout, psycopg2.OperationalError):
    """No connection within the request's timeout."""


class TooManyRequests(errors.TooManyRequests, psycopg2.OperationalError):
    """The queue is as long as `max_waiting` allows."""


class PoolClosed(errors.PoolClosed, psycopg2.OperationalError):
    """The pool was closed before or while the request waited."""


class Psycopg2Driver:
    """The adapter of psycopg2; see drivers.protocol for what each method promises."""

    name = "psycopg2"
    PoolTimeout = PoolTimeout
    TooManyRequests = TooManyRequests
    PoolClosed = PoolClosed
    Error = psycopg2.Error

    def connect_params(self, params: dict[str, Any]) -> dict[str, Any]:
        factory = params.get("connection_factory") or extensions.connection
        return {**params, "connection_factory": with_room(factory)}

    def close(self, connection: Any) -> None:
        if connection.closed and getattr(connection, "_pool_waits", False):
            connection._pool_waits = False
            cancel_beside(connection._pool_key)
        try:
            connection.close()
        except psycopg2.Error:
            # psycopg2 raises only where the connection was broken before.
            return

    def leave(self, connection: Any) -> None:
        # psycopg2 knows the process that a connection was made in, and drops it in no other.
        with suppress(psycopg2.Error):  # it is closed
            lead_nowhere(connection.fileno())

    def watch(self, connection: Any) -> Watch:
        return watch_socket(connection.fileno())

    def session(self, connection: Any) -> Session:
        if connection._pool_session is None:
            connection._pool_session = Session()
        session: Session = connection._pool_session
        return session

    def shape(self, connection: Any) -> Any:
        connection._pool_touched = False
        return Shape.of(connection)

    def is_tidy(self, connection: Any, shape: Any) -> bool:
        # psycopg2 knows of a broken connection by `closed`; 0 is IDLE, as in libpq.
        return bool(
            not connection.closed
            and connection.get_transaction_status() == 0
            and not connection._pool_touched
            and compared(connection) == shape.compared
            and (not shape.typed or shape.has_types_of(connection))
        )

    def status(self, connection: Any) -> TransactionStatus:
        if connection.closed:
            return TransactionStatus.UNKNOWN
        return TransactionStatus(connection.get_transaction_status())

    def is_held(self, connection: Any) -> bool:
        return False

    def tidy(self, connection: Any) -> None:
        if self.status(connection) is not TransactionStatus.IDLE:
            connection.rollback()
        if self.status(connection) is not TransactionStatus.IDLE:
            # In autocommit psycopg2 takes no part in a transaction that SQL has begun.
            self._send(connection, "ROLLBACK")
        if not connection.autocommit:
            connection.autocommit = True

    def reshape(self, connection: Any, shape: Any) -> None:
        if changed := shape.changed(connection):
            # In autocommit psycopg2 sends these as SETs, and keeps no record of what was.
            raise psycopg2.InterfaceError(f"a borrower has changed its {changed}")
        shape.restore(connection)
        connection._pool_touched = False

    def reset(self, connection: Any, sql: str) -> bool:
        self._send(connection, sql)
        if not connection.get_parameter_status("DateStyle").startswith("ISO"):
            self._send(connection, READABLE_DATES)
        connection.notifies.clear()  # what a LISTEN has brought until now
        return False

    def finish_reset(self, connection: Any) -> None:
        """reset() has read the answer."""

    def absorb(self, connection: Any) -> None:
        connection.poll()

    def check(self, connection: Any) -> None:
        # Not an empty statement, as with psycopg 3: psycopg2 raises on one.
        self._send(connection, "SELECT 1")
        if not is_still(self.session(connection).wanted, connection.info.parameter_status):
            raise psycopg2.OperationalError("the server takes no writes any more")

    def hang_up(self, connection: Any) -> None:
        try:
            hang_up(connection.fileno())
        except psycopg2.Error:
            return  # it is closed

    def server_pid(self, connection: Any) -> int:
        return int(connection.info.backend_pid)

    def serves_reads_only(self, connection: Any) -> bool:
        return says_read_only(connection.info.parameter_status)

    def sqlstate(self, error: BaseException) -> str | None:
        return getattr(error, "pgcode", None)

    def is_permanent(self, error: BaseException) -> bool:
        return not isinstance(error, psycopg2.OperationalError) or is_refusal(error)

    def refuses_password(self, error: BaseException) -> bool:
        return is_wrong_password(error)

    def refuses_startup_options(self, error: BaseException) -> bool:
        return is_refused_option(error)

    def _send(self, connection: Any, sql: str) -> None:
        # psycopg2's own cursor: what the pool does is no borrower's doing.
        cursor = extensions.connection.cursor(connection, cursor_factory=extensions.cursor)
        with cursor:
            cursor.execute(sql)
