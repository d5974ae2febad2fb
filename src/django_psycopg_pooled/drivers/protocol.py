"""What the pool asks of a driver. The pool knows a connection as an opaque object."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

from django_psycopg_pooled import errors
from django_psycopg_pooled.session import Session


class TransactionStatus(IntEnum):
    """What the server was last known to do for a connection; libpq's numbers."""

    IDLE = 0
    ACTIVE = 1
    INTRANS = 2
    INERROR = 3
    UNKNOWN = 4  # the connection is closed or broken


OPEN_TRANSACTION = (TransactionStatus.INTRANS, TransactionStatus.INERROR)

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

    @property
    def Error(self) -> type[Exception]:
        """The driver's own base class."""

    def connect_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """*params* for the driver's connect(), so that the connection has room for a Session."""

    def close(self, connection: Any) -> None:
        """Close politely. Never raises: a connection that cannot be closed is gone already."""

    def leave(self, connection: Any) -> None:
        """In a child of fork(): it is the parent's, and nobody here will ever close it.

        Not a byte is sent, now or by cursors that are open; they fail. Never raises. Another
        thread of the parent may have been in the midst of anything with it: no lock is taken.
        """

    def watch(self, connection: Any) -> Watch:
        """A function that says whether the server has sent something; made once a connection."""

    def session(self, connection: Any) -> Session:
        """What is known of the session behind it. No round trip."""

    def shape(self, connection: Any) -> Any:
        """The attributes of the connection that its borrowers may change, to compare them later.

        Autocommit is among them. No round trip. May be called once for a connection.
        """

    def is_tidy(self, connection: Any, shape: Any) -> bool:
        """Whether it is open, outside a transaction, and has that *shape*. No round trip."""

    def status(self, connection: Any) -> TransactionStatus:
        """The transaction status as the driver knows it. No round trip."""

    def is_held(self, connection: Any) -> bool:
        """Whether an iterator over it, which was not read to its end, keeps others waiting."""

    def tidy(self, connection: Any) -> None:
        """Roll an open transaction back and set autocommit. One round trip at most.

        Raises the driver's exception if the connection cannot be brought back.
        """

    def reshape(self, connection: Any, shape: Any) -> None:
        """Give the connection, outside a transaction, its *shape* back. No round trip."""

    def reset(self, connection: Any, sql: str) -> bool:
        """Send *sql*, some statements, to the connection outside a transaction.

        True if the answer is still to be read, by finish_reset(); else it was, which is a round
        trip. Raises the driver's exception.
        """

    def finish_reset(self, connection: Any) -> None:
        """Read the answer to reset(); waits for it. Raises the driver's exception."""

    def absorb(self, connection: Any) -> None:
        """Read what the server sent to the idle connection (notices are fine); does not wait.

        Raises the driver's exception if what arrived is the end of the connection.
        """

    def check(self, connection: Any) -> None:
        """Ask the server for a sign of life: one round trip. Raises if there is none.

        Also if it is not what Session.wanted asks for any more: "primary" or "read-write".
        """

    def hang_up(self, connection: Any) -> None:
        """End the network connection from another thread, so that whoever waits for it fails.

        Never raises.
        """

    def server_pid(self, connection: Any) -> int:
        """The process id of the server's backend. No round trip."""

    def serves_reads_only(self, connection: Any) -> bool:
        """Whether the server said that it is a standby, or read-only by default. No round trip.

        True as well if it is too old to say so (before PostgreSQL 14).
        """

    def sqlstate(self, error: BaseException) -> str | None:
        """The server's code for an error; None if it has none."""

    def is_permanent(self, error: BaseException) -> bool:
        """Whether connecting again in a moment cannot help: wrong password, no such database."""

    def refuses_password(self, error: BaseException) -> bool:
        """Whether a failed connect says that the password is wrong."""

    def refuses_startup_options(self, error: BaseException) -> bool:
        """Whether a failed connect says that what answers takes no settings at the start."""
