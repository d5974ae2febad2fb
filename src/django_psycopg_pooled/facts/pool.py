"""Facts about a pool at one moment, for readers that must not touch the pool itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StateName = Literal["opening", "idle", "lent", "checking", "closing", "closed"]


@dataclass(frozen=True, slots=True)
class ConnectionSnapshot:
    """One connection of a pool. Durations in seconds."""

    number: int  # 1 for the first connection that the pool opened
    state: StateName
    server_pid: int | None  # None while it is being opened
    age_s: float
    in_state_s: float  # how long it has been lent or idle; for the other states since it was idle
    uses: int  # how often it was lent
    thread: str | None  # who has it now; None if nobody
    thread_id: int | None = None
    label: str | None = None  # the request, task or command that the thread works on
    activity: str | None = None  # idle, active, idle in transaction, as PostgreSQL names them
    borrowed_at: str = ""  # the user's line of code that borrowed it; empty if unknown
    last_statement_at: str = ""  # the line that ran the last statement
    now_at: str = ""  # where the thread is at this moment
    statement: str = ""  # the text of the last statement of this loan, without literals
    statement_s: float | None = None  # how long it took, or has been running; None without one
    quiet_s: float | None = None  # since it ended; None while one runs, and without one
    transaction_s: float | None = None  # since Django began the transaction; None without one
    transaction_at: str = ""  # the line that began it
    atomic_depth: int = 0  # atomic blocks that are open, one in the other
    durable: bool = False  # whether the outermost of them is
    # The same places with the lines that led there, innermost first.
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One pool with all its connections. Durations in seconds."""

    name: str
    min_size: int
    max_size: int
    timeout_s: float
    max_waiting: int
    requests_waiting: int
    paused: bool
    closed: bool
    last_failure: str | None  # the driver's message of the last failed connect, until one succeeds
    last_failure_ago_s: float | None
    connections: tuple[ConnectionSnapshot, ...]

    def count(self, state: StateName) -> int:
        """How many connections are in *state*."""
        return sum(c.state == state for c in self.connections)

    @property
    def size(self) -> int:
        """Connections that take one of max_size slots."""
        return len(self.connections)
