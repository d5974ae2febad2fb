"""Facts about the statements of a pool, for readers that must not touch the pool itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallerShare:
    """Who executes a statement: a line of code, or a request, task or command."""

    text: str  # "shop/views.py:88 in checkout", or "GET /orders/<int:pk>/"
    calls: int  # never less than it made; somewhat more if there are many callers
    share: float  # of the statement's calls, 0.0 to 1.0


@dataclass(frozen=True, slots=True)
class QueryFacts:
    """All statements of one fingerprint since the last reset. Durations in seconds.

    What is 0 calls has 0.0 for its durations.
    """

    text: str  # the fingerprint: no literal and no parameter is in it
    calls: int  # executions, also those that failed
    errors: int
    errors_by_sqlstate: dict[str, int]  # the last few kinds are one: "other"
    rows: int  # returned or changed
    total_s: float  # in the driver: the server, the network, and reading what came
    mean_s: float
    min_s: float
    max_s: float
    p50_s: float  # percentiles are right to 4.4 %
    p95_s: float
    p99_s: float
    waited_s: float  # for a connection, where this was the first statement of a loan
    plain_calls: int  # not prepared
    plain_mean_s: float
    prepared_calls: int
    prepared_mean_s: float
    callers: tuple[CallerShare, ...]  # lines of the user's code, the most frequent first
    works: tuple[CallerShare, ...]  # requests, tasks and commands, the most frequent first
    n_plus_one: int  # requests, tasks, commands that ran it too often with other parameters
    n_plus_one_most: int  # how often one of these did
    first_seen: float  # seconds since 1970
    last_seen: float
