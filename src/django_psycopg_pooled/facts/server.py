"""Facts about the server's sessions at one moment, for readers that must not ask the server."""

from dataclasses import dataclass, field

# Who holds a lock: a session's process id, or a prepared transaction's name, its gid. A gid that
# the server did not tell is "".
Who = int | str


@dataclass(frozen=True, slots=True)
class AwaitedLock:
    """What a session waits for."""

    kind: str  # table, index ..., row, transaction, advisory; else the server's own word
    name: str  # "table shop_order", "row of shop_order", "advisory lock 42", "transaction 812"
    mode: str  # as in PostgreSQL's manual: "ACCESS EXCLUSIVE"
    wait_s: float | None  # None if the wait has only just begun


@dataclass(frozen=True, slots=True)
class HolderFacts:
    """Why a session waits: somebody who has the lock, or is before it in the queue."""

    who: Who
    modes: tuple[str, ...]  # in which it has that very lock, the strongest first
    queued: bool  # it does not have the lock, as far as is known: it waits for it too, in front


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """One session of the server. Durations in seconds; None is what the server does not tell.

    (pid, backend_start_us) is one session for ever: process ids are used again.
    """

    pid: int
    backend_start_us: int | None  # microseconds since 1970, exact
    database: str | None
    user: str | None
    application_name: str
    client: str | None  # an address, or "local" for a socket
    kind: str | None  # "client backend", "autovacuum worker" ...
    state: str | None  # active, idle, idle in transaction ..., as PostgreSQL names them
    state_change_us: int | None  # with `state`: has it done anything since?
    state_age_s: float | None
    xact_age_s: float | None  # None outside a transaction
    wait_event_type: str | None
    wait_event: str | None
    query: str  # the last or running statement, cut; without literals if it was read so
    asks: bool  # the session through which these facts were read
    hidden: bool  # it belongs to a role whose sessions the reader may not look into
    waits_for: AwaitedLock | None = None
    behind: tuple[HolderFacts, ...] = ()  # all of these must let go; ten at most
    behind_count: int = 0  # and how many they are


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A transaction without a session: it keeps its locks until it is committed by its name."""

    gid: str
    age_s: float
    owner: str
    database: str


@dataclass(frozen=True, slots=True)
class BlockingNode:
    """One place in a tree of who waits for whom."""

    who: Who
    blocks: int  # sessions that wait behind it, near and far
    in_cycle: bool  # it waits for itself, by others: a deadlock that the server has not seen yet
    again: bool  # it stands elsewhere with those behind it
    waiters: tuple["BlockingNode", ...] = ()
    deeper: int = 0  # waiters that the limit of depth has cut off


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """All sessions of a server as one of them sees them."""

    server_pid: int  # of the session that asked, as the server says
    database: str  # and its database
    version: str
    read_at_us: int  # when it answered, by its clock; microseconds since 1970
    backends: tuple[BackendFacts, ...]
    prepared: tuple[PreparedTransaction, ...]
    blocking: tuple[BlockingNode, ...]  # the most harmful first
    cycles: tuple[tuple[Who, ...], ...]
    pooler_between: bool = False  # the driver talks to somebody else than this server
    problems: tuple[str, ...] = field(default=())  # what is missing, why, and what would give it

    def backend(self, pid: Who) -> BackendFacts | None:
        """The session with that process id."""
        return next((b for b in self.backends if b.pid == pid), None)

    @property
    def waiting(self) -> tuple[BackendFacts, ...]:
        """The sessions that wait for a lock, the longest wait first."""
        found = [(b.waits_for.wait_s or 0.0, b) for b in self.backends if b.waits_for]
        return tuple(b for _, b in sorted(found, key=lambda pair: -pair[0]))


@dataclass(frozen=True, slots=True)
class ActionFacts:
    """What became of the wish to end a session or its statement."""

    done: bool
    reason: str  # one word or two that never change: "ended", "gone", "reused", "moved on" ...
    text: str
