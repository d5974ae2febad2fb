"""A driver without a server: it answers as its script says, and records what it was asked."""

from collections.abc import Sequence
from typing import Any

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch


class DriverError(Exception):
    """What the scripted driver raises: the server is away."""


class RefusedError(DriverError):
    """A failure that trying again cannot mend, such as a wrong password."""


class PoolTimeout(errors.PoolTimeout, DriverError):
    """No connection within the request's timeout."""


class TooManyRequests(errors.TooManyRequests, DriverError):
    """The queue is as long as `max_waiting` allows."""


class PoolClosed(errors.PoolClosed, DriverError):
    """The pool was closed before or while the request waited."""


class ScriptedConnection:
    """A connection to nowhere. A test sets its attributes to say what happens to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self.dead = False  # the server has ended it: its end waits on the socket
        self.unanswered = False  # the server does not answer, and the socket looks well
        self.notices = 0  # reads that wait on the socket, and are no harm
        self.status = TransactionStatus.IDLE
        self.autocommit = True

    def __repr__(self) -> str:
        return f"<ScriptedConnection {self.number}>"


class ScriptedDriver:
    """Answers from a list.

    connects   what each connect does, in turn: an exception is raised, None succeeds. When the
               list is used up, every connect succeeds.
    """

    name = "scripted"
    PoolTimeout = PoolTimeout
    TooManyRequests = TooManyRequests
    PoolClosed = PoolClosed

    def __init__(self, connects: Sequence[Exception | None] = ()) -> None:
        self.script = list(connects)
        self.opened: list[ScriptedConnection] = []
        self.calls: list[tuple[str, int]] = []  # (method, number of the connection)

    def connect(self) -> ScriptedConnection:
        """A connector for a Pool."""
        outcome = self.script.pop(0) if self.script else None
        if outcome is not None:
            raise outcome
        connection = ScriptedConnection(len(self.opened) + 1)
        self.opened.append(connection)
        return connection

    def count(self, method: str) -> int:
        """How often *method* was called."""
        return sum(name == method for name, _ in self.calls)

    def close(self, connection: Any) -> None:
        self.calls.append(("close", connection.number))
        connection.closed = True

    def watch(self, connection: Any) -> Watch:
        return lambda _ms: connection.dead or connection.notices > 0

    def is_tidy(self, connection: Any) -> bool:
        return self.status(connection) is TransactionStatus.IDLE and connection.autocommit

    def status(self, connection: Any) -> TransactionStatus:
        gone = connection.closed or connection.dead
        return TransactionStatus.UNKNOWN if gone else connection.status

    def tidy(self, connection: Any) -> None:
        self.calls.append(("tidy", connection.number))
        self._must_answer(connection)
        connection.status = TransactionStatus.IDLE
        connection.autocommit = True

    def absorb(self, connection: Any) -> None:
        self.calls.append(("absorb", connection.number))
        if connection.dead:
            raise DriverError("server closed the connection unexpectedly")
        connection.notices -= 1

    def check(self, connection: Any) -> None:
        self.calls.append(("check", connection.number))
        self._must_answer(connection)

    def server_pid(self, connection: Any) -> int:
        return 10_000 + int(connection.number)

    def is_permanent(self, error: BaseException) -> bool:
        return not isinstance(error, DriverError) or isinstance(error, RefusedError)

    def _must_answer(self, connection: Any) -> None:
        if connection.dead or connection.closed or connection.unanswered:
            raise DriverError("server closed the connection unexpectedly")
