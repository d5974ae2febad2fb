"""psycopg 3. Imports it, so import this module only when it is the driver in use."""

from typing import Any

import psycopg

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.drivers.refusals import is_refusal
from django_psycopg_pooled.drivers.sockets import watch_socket


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

    def close(self, connection: Any) -> None:
        try:
            connection.close()
        except psycopg.Error:
            # psycopg raises only where the connection was broken before.
            return

    def watch(self, connection: Any) -> Watch:
        return watch_socket(connection.pgconn.socket)

    def is_tidy(self, connection: Any) -> bool:
        # On the path of every request: 0 is IDLE, and the enum would cost more than the rest.
        return connection.pgconn.transaction_status == 0 and connection.autocommit is True

    def status(self, connection: Any) -> TransactionStatus:
        return TransactionStatus(int(connection.pgconn.transaction_status))

    def tidy(self, connection: Any) -> None:
        if self.status(connection) is not TransactionStatus.IDLE:
            connection.rollback()
        if connection.autocommit is not True:
            connection.autocommit = True

    def absorb(self, connection: Any) -> None:
        connection.pgconn.consume_input()

    def check(self, connection: Any) -> None:
        # An empty statement: no plan, no snapshot, no entry in pg_stat_statements.
        with connection.cursor() as cursor:
            cursor.execute("")

    def server_pid(self, connection: Any) -> int:
        return int(connection.pgconn.backend_pid)

    def is_permanent(self, error: BaseException) -> bool:
        return not isinstance(error, psycopg.OperationalError) or is_refusal(error)
