"""psycopg2. Imports it, so import this module only when it is the driver in use."""

from typing import Any

import psycopg2

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.drivers.refusals import is_refusal
from django_psycopg_pooled.drivers.sockets import watch_socket


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

    def close(self, connection: Any) -> None:
        try:
            connection.close()
        except psycopg2.Error:
            # psycopg2 raises only where the connection was broken before.
            return

    def watch(self, connection: Any) -> Watch:
        return watch_socket(connection.fileno())

    def is_tidy(self, connection: Any) -> bool:
        # psycopg2 knows of a broken connection by `closed`; 0 is IDLE, as in libpq.
        return bool(
            not connection.closed
            and connection.get_transaction_status() == 0
            and connection.autocommit
        )

    def status(self, connection: Any) -> TransactionStatus:
        if connection.closed:
            return TransactionStatus.UNKNOWN
        return TransactionStatus(connection.get_transaction_status())

    def tidy(self, connection: Any) -> None:
        if self.status(connection) is not TransactionStatus.IDLE:
            connection.rollback()
        if self.status(connection) is not TransactionStatus.IDLE:
            # In autocommit psycopg2 takes no part in a transaction that SQL has begun.
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
        if not connection.autocommit:
            connection.autocommit = True

    def absorb(self, connection: Any) -> None:
        connection.poll()

    def check(self, connection: Any) -> None:
        # Not an empty statement, as with psycopg 3: psycopg2 raises on one.
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def server_pid(self, connection: Any) -> int:
        return int(connection.info.backend_pid)

    def is_permanent(self, error: BaseException) -> bool:
        return not isinstance(error, psycopg2.OperationalError) or is_refusal(error)
