"""What the pool asks of a driver. The pool knows a connection as an opaque object."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

from django_psycopg_pooled import errors


class TransactionStatus(IntEnum):
    """What the server was last known to do for a connection; libpq's numbers."""

    IDLE = 0
    ACTIVE = 1
    INTRANS = 2
    INERROR = 3
    UNKNOWN = 4  # the connection is closed or broken


# Truthy if bytes, or the end of the connection, wait on the idle socket. No round trip, no wait:
# its one argument is how many milliseconds to wait, always 0.
Watch = Callable[[int], Any]


class Driver(Protocol):
    """A database driver. Stateless; any thread, but one at a time for one connection."""

    name: str

    # The pool's exceptions as subclasses of the driver's OperationalError, so that Django wraps
    # them and an existing `except OperationalError` keeps working.
    @property
    def PoolTimeout(self) -> type[errors.PoolTimeout]: ...

    @property
    def TooManyRequests(self) -> type[errors.TooManyRequests]: ...

    @property
    def PoolClosed(self) -> type[errors.PoolClosed]: ...

    def close(self, connection: Any) -> None:
        """Close politely. Never raises: a connection that cannot be closed is gone already."""

    def watch(self, connection: Any) -> Watch:
        """A function that says whether the server has sent something; made once a connection."""

    def is_tidy(self, connection: Any) -> bool:
        """Whether it is open, in autocommit and outside a transaction. No round trip, no wait."""

    def status(self, connection: Any) -> TransactionStatus:
        """The transaction status as the driver knows it. No round trip."""

    def tidy(self, connection: Any) -> None:
        """Roll an open transaction back and set autocommit. One round trip at most.

        Raises the driver's exception if the connection cannot be brought back.
        """

    def absorb(self, connection: Any) -> None:
        """Read what the server sent to the idle connection (notices are fine); does not wait.

        Raises the driver's exception if what arrived is the end of the connection.
        """

    def check(self, connection: Any) -> None:
        """Ask the server for a sign of life: one round trip. Raises if there is none."""

    def server_pid(self, connection: Any) -> int:
        """The process id of the server's backend. No round trip."""

    def is_permanent(self, error: BaseException) -> bool:
        """Whether connecting again in a moment cannot help: wrong password, no such database."""
