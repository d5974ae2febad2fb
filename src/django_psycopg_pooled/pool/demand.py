"""Whether a request that found no idle connection should wait for one or have one opened."""

from dataclasses import dataclass

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

    def saw_connect(self, seconds: float) -> None:
        """Learn from a connect that succeeded."""
        self.connect_s += (seconds - self.connect_s) * (WEIGHT if self.connect_s else 1.0)

    def saw_loan(self, seconds: float) -> None:
        """Learn from a loan that ended."""
        self.loan_s += (seconds - self.loan_s) * (WEIGHT if self.loan_s else 1.0)

    def patience(self, place: int, lent: int) -> float:
        """Seconds to wait for a returned connection before one is opened; 0 for not at all.

        place   in the queue, 1 for the first
        lent    connections that may come back
        """
        if not lent or not self.loan_s:
            return 0.0
        expected = self.loan_s * place / lent
        return min(self.connect_s, 2.0 * expected) if expected < self.connect_s else 0.0
