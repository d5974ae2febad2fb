"""Which of the server's sessions are loans of processes. A pure function."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from django_psycopg_pooled.facts.server import BackendFacts, ServerFacts

# By how much a session may seem younger on the server than in its process: the clocks tick alike,
# but the two are not read at the same moment.
SLACK_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """A connection that a process takes for the session of that number; lives for one look."""

    server_pid: int | None  # None while it is being opened
    age_s: float  # of the connection, by its process's clock
    what: T  # all else that is known of it


def joined(facts: ServerFacts, claims: Iterable[Claim[T]], late_s: float = 0.0) -> dict[int, T]:
    """By server process id those of *claims* whose session the server has.

    A number is used again when its session has ended: but then by a session that began after its
    process had the connection. Behind a pooler the numbers are not the server's, and none is told.

    late_s   how long after *facts* the claims' ages were read, at most
    """
    if facts.pooler_between:
        return {}
    backends = {backend.pid: backend for backend in facts.backends}
    slack_s = SLACK_S + late_s
    return {
        backend.pid: claim.what
        for claim in claims
        if (backend := backends.get(claim.server_pid or 0)) is not None
        and _is_as_old(facts, backend, claim.age_s - slack_s)
    }


def _is_as_old(facts: ServerFacts, backend: BackendFacts, age_s: float) -> bool:
    if backend.backend_start_us is None:
        return True  # hidden: it cannot be told
    return (facts.read_at_us - backend.backend_start_us) / 1e6 >= age_s
