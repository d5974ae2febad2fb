"""A driver without a server: it answers as its script says, and records what it was asked."""

from collections.abc import Sequence
from typing import Any

from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.session import Session


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
        self.attributes = 0  # a borrower may change it
        self.session = Session()
        self.refuses_resets = False
        self.hung_up = False

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
    Error = DriverError

    def __init__(self, connects: Sequence[Exception | None] = ()) -> None:
        self.script = list(connects)
        self.opened: list[ScriptedConnection] = []
        self.calls: list[tuple[str, int]] = []  # (method, number of the connection)
        self.resets: list[str] = []  # what was sent to reset sessions
        self.answers_resets_later = False

    def connect_params(self, params: dict[str, Any]) -> dict[str, Any]:
        return params

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

    def leave(self, connection: Any) -> None:
        self.calls.append(("leave", connection.number))

    def watch(self, connection: Any) -> Watch:
        return lambda _ms: connection.dead or connection.notices > 0

    def session(self, connection: Any) -> Session:
        session: Session = connection.session
        return session

    def shape(self, connection: Any) -> Any:
        return connection.autocommit, connection.attributes

    def is_tidy(self, connection: Any, shape: Any) -> bool:
        return self.status(connection) is TransactionStatus.IDLE and self.shape(connection) == shape

    def is_held(self, connection: Any) -> bool:
        return False

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

    def reshape(self, connection: Any, shape: Any) -> None:
        connection.autocommit, connection.attributes = shape

    def reset(self, connection: Any, sql: str) -> bool:
        self.calls.append(("reset", connection.number))
        self.resets.append(sql)
        if not self.answers_resets_later:
            self.finish_reset(connection)
        return self.answers_resets_later

    def finish_reset(self, connection: Any) -> None:
        self.calls.append(("finish_reset", connection.number))
        self._must_answer(connection)
        if connection.refuses_resets:
            raise DriverError("the reset failed")

    def hang_up(self, connection: Any) -> None:
        self.calls.append(("hang_up", connection.number))
        connection.hung_up = True

    def serves_reads_only(self, connection: Any) -> bool:
        return False

    def sqlstate(self, error: BaseException) -> str | None:
        return None

    def check(self, connection: Any) -> None:
        self.calls.append(("check", connection.number))
        self._must_answer(connection)

    def server_pid(self, connection: Any) -> int:
        return 10_000 + int(connection.number)

    def is_permanent(self, error: BaseException) -> bool:
        return not isinstance(error, DriverError) or isinstance(error, RefusedError)

    def refuses_password(self, error: BaseException) -> bool:
        return isinstance(error, RefusedError)

    def refuses_startup_options(self, error: BaseException) -> bool:
        return False

    def _must_answer(self, connection: Any) -> None:
        if connection.dead or connection.closed or connection.unanswered:
            raise DriverError("server closed the connection unexpectedly")
