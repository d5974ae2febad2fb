"""What the pool asks of whoever can tell which line of code borrows a connection."""

from typing import Any, Protocol

from django_psycopg_pooled.facts.pool import ConnectionSnapshot


class Observer(Protocol):
    """Names lines of Python. Any thread; never raises; keeps no frame alive."""

    def here(self) -> Any:
        """The stack of this thread, raw: cheap enough for every loan."""

    def place(self, stack: Any) -> str:
        """The user's own line in a raw *stack*: file, line number and function."""

    def lines(self, stack: Any) -> list[str]:
        """All that is kept of a raw *stack*, the innermost first."""

    def now(self, thread_id: int) -> Any:
        """Where another thread is at this moment, raw; None if it has ended."""

    def label(self, thread_id: int) -> str | None:
        """The request, task or command that a thread works on, if known."""


class Listener(Protocol):
    """Hears of what happens in a pool. What it raises is logged."""

    def timed_out(self) -> None:
        """A request has waited in vain, and is about to raise PoolTimeout; in its thread."""

    def idle_in_transaction(self, facts: ConnectionSnapshot) -> None:
        """A transaction has been idle for too long; in a thread of the pool's."""

    def looked(self) -> None:
        """Loans have been looked through: about every second while there are any, and once after.

        In a thread of the pool's.
        """


class Deaf:
    """Hears nothing."""

    def timed_out(self) -> None:
        pass

    def idle_in_transaction(self, facts: ConnectionSnapshot) -> None:
        pass

    def looked(self) -> None:
        pass


class Blind:
    """Knows nothing; for pools outside Django, and their unit tests."""

    def here(self) -> Any:
        return None

    def place(self, stack: Any) -> str:
        return ""

    def lines(self, stack: Any) -> list[str]:
        return []

    def now(self, thread_id: int) -> Any:
        return None

    def label(self, thread_id: int) -> str | None:
        return None
