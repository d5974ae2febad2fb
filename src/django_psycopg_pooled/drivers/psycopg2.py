"""psycopg2. Imports it, so import this module only when it is the driver in use."""

import ctypes
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from operator import attrgetter
from typing import Any, Self

import psycopg2
from psycopg2 import extensions

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.drivers.refusals import (
    is_refusal,
    is_refused_option,
    is_still,
    is_wrong_password,
    says_read_only,
)
from django_psycopg_pooled.drivers.sockets import hang_up, watch_socket
from django_psycopg_pooled.session import Effect, Session

# What a borrower can change on a connection.
SENT = ("isolation_level", "readonly", "deferrable", "encoding")
TYPES = ("string_types", "binary_types")  # registered for this connection only
ATTRIBUTES = ("autocommit", "cursor_factory", *SENT, *TYPES)
_shape_of = attrgetter(*ATTRIBUTES)
_types_of = attrgetter(*TYPES)

CANCEL_S = 1.0


class PoolTimeout(errors.PoolTimeout, psycopg2.OperationalError):
    """No connection within the request's timeout."""


class TooManyRequests(errors.TooManyRequests, psycopg2.OperationalError):
    """The queue is as long as `max_waiting` allows."""


class PoolClosed(errors.PoolClosed, psycopg2.OperationalError):
    """The pool was closed before or while the request waited."""


class Shape(tuple[Any, ...]):
    """A connection's ATTRIBUTES before anybody had it; lives as long as it."""

    typed: bool  # some types were registered for it
    bare: Self | None = None  # this one, before receivers of connection_created registered types
    greeter: object = None  # the request that sent them the signal; None for any

    def __new__(cls, values: Iterable[Any]) -> Self:
        shape = super().__new__(cls, values)
        shape.typed = any(shape[-len(TYPES) :])
        return shape

    def has_types_of(self, connection: Any) -> bool:
        """Whether the same are registered now: to psycopg2 all types of one OID are equal."""
        return all(
            now.keys() == then.keys() and all(now[oid] is then[oid] for oid in then)
            for now, then in zip(_types_of(connection), self[-len(TYPES) :], strict=True)
        )

    def put_types(self, connection: Any) -> None:
        """Have none but this shape's types registered on the connection."""
        for now, then in zip(_types_of(connection), self[-len(TYPES) :], strict=True):
            now.clear()
            now.update(then)

    def grown(self, connection: Any) -> Self:
        """This shape with the types registered since; itself if there are none."""
        if self.has_types_of(connection):
            return self
        grown = type(self)((*self[: -len(TYPES)], *(t.copy() for t in _types_of(connection))))
        grown.bare = self
        return grown

    def shrunk(self, connection: Any) -> Self:
        """Take back what grown() has found. No round trip."""
        if self.bare is None:
            return self
        self.bare.put_types(connection)
        return self.bare


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
            _cancel_beside(connection._pool_key)
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
        return Shape(v.copy() if isinstance(v, dict) else v for v in _shape_of(connection))

    def is_tidy(self, connection: Any, shape: Any) -> bool:
        # psycopg2 knows of a broken connection by `closed`; 0 is IDLE, as in libpq.
        return bool(
            not connection.closed
            and connection.get_transaction_status() == 0
            and _shape_of(connection) == shape
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
    _pool_key: "_Key | None" = None
    _pool_waits = False  # a wait callback waits for the server, which works

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if extensions.get_wait_callback() is not None:
            self._pool_key = _Key.of(self)

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


class _Key:
    """Leave to cancel what the server does for one connection; holds when that is closed.

    A greenlet that is killed in the midst of a statement leaves psycopg2 no choice but to close the
    connection, and a closed one has no cancel(). The server works on until the statement has ended.
    """

    def __init__(self, libpq: Any, connection: Any) -> None:
        self._libpq = libpq
        self._cancel = libpq.PQgetCancel(connection.pgconn_ptr)

    @classmethod
    def of(cls, connection: Any) -> "_Key | None":
        libpq = _libpq()
        return None if libpq is None else cls(libpq, connection)

    def cancel(self) -> None:
        """Blocks, without the GIL: for ever if the server's host does not answer."""
        said = ctypes.create_string_buffer(256)
        self._libpq.PQcancel(self._cancel, said, len(said))

    def __del__(self) -> None:
        self._libpq.PQfreeCancel(self._cancel)


@cache
def _libpq() -> Any:
    """The libpq that psycopg2 uses; None if its functions are hidden.

    Source: psycopg2's documentation of connection.pgconn_ptr.
    """
    try:
        libpq = ctypes.CDLL(psycopg2._psycopg.__file__)
        libpq.PQgetCancel.argtypes, libpq.PQgetCancel.restype = [ctypes.c_void_p], ctypes.c_void_p
        libpq.PQfreeCancel.argtypes, libpq.PQfreeCancel.restype = [ctypes.c_void_p], None
        libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    except (OSError, AttributeError):
        return None
    return libpq


def _cancel_beside(key: _Key | None) -> None:
    """Cancel in a real thread, and let other greenlets run meanwhile. Blocks for CANCEL_S at most.

    Else the server works on, and counts as one more session, until it has finished.
    """
    gevent = sys.modules.get("gevent")  # not imported: whoever kills greenlets has done so
    if key is None or gevent is None:
        return
    # What a second kill raises passes; that the hub cannot wait for a thread does not matter.
    with suppress(Exception), gevent.Timeout(CANCEL_S, False):
        _thread_of(gevent.get_hub()).apply(key.cancel)


@cache
def _thread_of(hub: Any) -> Any:
    """One thread beside a hub: not its own ones, which a silent server would keep from all else."""
    return hub.threadpool_class(1, hub=hub)
