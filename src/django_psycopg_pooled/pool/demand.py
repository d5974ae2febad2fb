"""Whether a request that found no idle connection should wait for one or have one opened."""

from dataclasses import dataclass

from django_psycopg_pooled.pool.counters import Counters

WEIGHT = 0.1  # of the newest observation


@dataclass(slots=True)
class Demand:
    """Moving averages of how long connects and loans take. Guarded by the pool's lock.

    A connect of 150 ms for a request that a returned connection would serve in 2 ms is waste: that
    is HikariCP's "Welcome to the Jungle". So a request first waits, if connections usually come
    back sooner than one is opened; but never longer than a connect takes, so that it waits at most
    twice as long as with the better choice. Source of the bound: the ski-rental problem.
    """

    connect_s: float = 0.0
    loan_s: float = 0.0
    # What was last learnt from.
    counters: Counters | None = None
    loans_num: int = 0
    usage_s: float = 0.0

    def saw_connect(self, seconds: float) -> None:
        """Learn from a connect that succeeded."""
        self.connect_s += (seconds - self.connect_s) * (WEIGHT if self.connect_s else 1.0)

    def saw_loans(self, counters: Counters) -> None:
        """Learn from the loans that have ended since the last call, as if all took their mean."""
        if counters is not self.counters:  # the sums were started anew
            self.counters, self.loans_num, self.usage_s = counters, 0, 0.0
        ended = counters.loans_num - self.loans_num
        if not ended:
            return
        seconds = (counters.usage_s - self.usage_s) / ended
        self.loan_s += (seconds - self.loan_s) * (1 - (1 - WEIGHT) ** ended if self.loan_s else 1.0)
        self.loans_num, self.usage_s = counters.loans_num, counters.usage_s

    def patience(self, place: int, lent: int) -> float:
        """Seconds to wait for a returned connection before one is opened; 0 for not at all.

        place   in the queue, 1 for the first
        lent    connections that may come back
        """
        if not lent or not self.loan_s:
            return 0.0
        expected = self.loan_s * place / lent
        return min(self.connect_s, 2.0 * expected) if expected < self.connect_s else 0.0
