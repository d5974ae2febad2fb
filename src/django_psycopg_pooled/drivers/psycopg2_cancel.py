"""Cancelling what the server does for a connection of psycopg2 that is closed already."""

import ctypes
import sys
from contextlib import suppress
from functools import cache
from typing import Any

import psycopg2

CANCEL_S = 1.0


class Key:
    """Leave to cancel what the server does for one connection; holds when that is closed.

    A greenlet that is killed in the midst of a statement leaves psycopg2 no choice but to close the
    connection, and a closed one has no cancel(). The server works on until the statement has ended.
    """

    def __init__(self, libpq: Any, connection: Any) -> None:
        self._libpq = libpq
        self._cancel = libpq.PQgetCancel(connection.pgconn_ptr)

    @classmethod
    def of(cls, connection: Any) -> "Key | None":
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


def cancel_beside(key: Key | None) -> None:
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
