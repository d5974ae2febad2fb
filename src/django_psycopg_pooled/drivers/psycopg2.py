"""psycopg2. Imports it, so import this module only when it is the driver in use."""

from functools import cache
from typing import Any

import psycopg2
from psycopg2 import extensions

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.drivers.psycopg2_cancel import Key, cancel_beside
from django_psycopg_pooled.drivers.psycopg2_shape import ATTRIBUTES, SENT, Shape, shape_of
from django_psycopg_pooled.drivers.refusals import (
    is_refusal,
    is_refused_option,
    is_still,
    is_wrong_password,
    says_read_only,
)
from django_psycopg_pooled.drivers.sockets import hang_up, watch_socket
from django_psycopg_pooled.session import Effect, Session


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
        return {**params, "connection_factory": _with_room(factory)}

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
        """psycopg2 knows the process that a connection was made in."""

    def watch(self, connection: Any) -> Watch:
        return watch_socket(connection.fileno())

    def session(self, connection: Any) -> Session:
        # A connection of psycopg2's own class has no room for it; one of ours, made by Django, has.
        session: Session | None = getattr(connection, "_pool_session", None)
        return session or Session()

    def shape(self, connection: Any) -> Any:
        return Shape(v.copy() if isinstance(v, dict) else v for v in shape_of(connection))

    def is_tidy(self, connection: Any, shape: Any) -> bool:
        # psycopg2 knows of a broken connection by `closed`; 0 is IDLE, as in libpq.
        return bool(
            not connection.closed
            and connection.get_transaction_status() == 0
            and shape_of(connection) == shape
            and (not shape.typed or shape.has_types_of(connection))
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
            self._send(connection, "ROLLBACK")
        if not connection.autocommit:
            connection.autocommit = True

    def reshape(self, connection: Any, shape: Any) -> None:
        known = dict(zip(ATTRIBUTES, shape, strict=True))
        for name in SENT:
            if getattr(connection, name) != known[name]:
                # In autocommit psycopg2 sends these as SETs, and keeps no record of what was.
                raise psycopg2.InterfaceError(f"a borrower has changed its {name}")
        connection.autocommit = True
        connection.cursor_factory = known["cursor_factory"]
        shape.put_types(connection)

    def reset(self, connection: Any, sql: str) -> bool:
        self._send(connection, sql)
        connection.notifies = []  # what a LISTEN has brought until now
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


class _Room:
    """Mixed in before a connection class of psycopg2's: room for a Session, which hears all."""

    _pool_session: Session | None = None
    _pool_key: Key | None = None
    _pool_waits = False  # a wait callback waits for the server, which works

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if extensions.get_wait_callback() is not None:
            self._pool_key = Key.of(self)

    def poll(self) -> int:
        """Asked by a wait callback before each wait, and once more when there is an answer."""
        self._pool_waits = False  # also if this raises: nobody works for a broken connection
        state: int = super().poll()  # type: ignore[misc]
        self._pool_waits = state != extensions.POLL_OK
        return state

    def cursor(
        self: Any, name: Any = None, cursor_factory: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if self._pool_session is not None:
            # Also a class that the borrower names, as many do to get dictionaries for rows.
            cursor_factory = cursor_factory or self.cursor_factory
            if isinstance(cursor_factory, type):
                cursor_factory = self._pool_session.watching(cursor_factory)
        return super().cursor(name, cursor_factory, *args, **kwargs)  # type: ignore[misc]

    def commit(self) -> None:
        super().commit()  # type: ignore[misc]
        if self._pool_session is not None:
            # The next transaction may begin without a statement of ours: copy_from(), lobject().
            self._pool_session.settle()

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        if self._pool_session is not None:
            effects = int(Effect.SETTINGS | Effect.ROLE)
            self._pool_session.note(effects, in_transaction=False)


@cache
def _with_room(factory: Any) -> Any:
    """A subclass of psycopg2's connection class whose objects can have a Session."""
    return type(factory.__name__, (_Room, factory), {"__module__": factory.__module__})
