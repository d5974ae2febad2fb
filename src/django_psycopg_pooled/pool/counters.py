"""What a pool counts: psycopg_pool's statistics, by its names."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Sums since the pool was made or pop_stats() was called. Guarded by the pool's lock.

    The times are kept in seconds and shown in whole milliseconds, as psycopg_pool does.
    """

    requests_num: int = 0
    requests_queued: int = 0
    requests_wait_s: float = 0.0
    requests_errors: int = 0
    usage_s: float = 0.0
    loans_num: int = 0  # those that have ended, and are in usage_s
    returns_bad: int = 0
    connections_num: int = 0
    connections_s: float = 0.0
    connections_errors: int = 0
    connections_lost: int = 0
    idle_in_transaction: int = 0  # times that a transaction was idle for too long; ours, too
    reclaimed: int = 0  # loans that nobody could end any more; psycopg_pool has no such count

    def as_stats(self) -> dict[str, int]:
        """The counters under psycopg_pool's keys."""
        return {
            "requests_num": self.requests_num,
            "requests_queued": self.requests_queued,
            "requests_wait_ms": int(self.requests_wait_s * 1000),
            "requests_errors": self.requests_errors,
            "usage_ms": int(self.usage_s * 1000),
            "returns_bad": self.returns_bad,
            "connections_num": self.connections_num,
            "connections_ms": int(self.connections_s * 1000),
            "connections_errors": self.connections_errors,
            "connections_lost": self.connections_lost,
            "idle_in_transaction": self.idle_in_transaction,
            "reclaimed": self.reclaimed,
        }
