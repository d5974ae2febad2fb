"""What was seen when something went wrong, for those who look later."""

from dataclasses import dataclass
from typing import Literal

from django_psycopg_pooled.facts.pool import PoolSnapshot
from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.facts.server import ServerFacts

Kind = Literal["pool timeout", "idle in transaction blocks others"]


@dataclass(frozen=True, slots=True)
class Incident:
    """One moment of one pool; kept until ten later ones have pushed it out."""

    kind: Kind
    at: float  # seconds since 1970
    pool: PoolSnapshot  # with the lines of code of every loan
    queries: tuple[QueryFacts, ...]  # that had taken most time until then
    server: ServerFacts | None  # the server's sessions, who blocks whom; None if it did not answer
    problem: str = ""  # why it did not
