"""What one connection has prepared."""

from collections import OrderedDict
from typing import Any

from django_psycopg_pooled.preparing.figures import EXCESS_S, FACTOR
from django_psycopg_pooled.preparing.plan import Plan, Variant

HANDED_IN = 8  # executions, before their figures are handed to the plan
# Executions after which one runs as it is, to know what that takes now; as many times that as it
# takes longer so, that it costs less than two hundredths of the time.
REST_EVERY = 64
PLANNED_ONE_BY_ONE = 5  # PostgreSQL looks at the generic plan after so many


class Held:
    """One statement on one connection; lives until it is closed there, or the connection is.

    Touched only by whoever has the connection, so its counts need no lock.
    """

    __slots__ = ("_count", "_rest_at", "_spent", "hits", "plan", "rests", "runs", "statement")

    def __init__(self, plan: Plan, statement: Any) -> None:
        self.plan = plan
        self.statement = statement
        # The same once it is prepared; None before, and when the next execution is to run as it is.
        self.runs: Any = None
        self.rests = False
        self.hits = 0
        self._count = 0
        self._spent = 0.0
        self._rest_at = REST_EVERY

    @property
    def unknown(self) -> tuple[int, float]:
        """Executions that the plan does not know of yet, and what they took."""
        return self._count, self._spent

    def ran(self, elapsed: float, now: float) -> None:
        """It was executed, prepared."""
        self.hits = hits = self.hits + 1
        self._count += 1
        self._spent += elapsed
        figures = self.plan.figures
        expected = figures.expected
        slow = expected is not None and elapsed > FACTOR * expected + EXCESS_S
        if slow or figures.alert or hits == PLANNED_ONE_BY_ONE or hits % HANDED_IN == 0:
            self.hand_in(now)
            if expected is None or hits >= self._rest_at:
                self.rests, self.runs = True, None
                self._rest_at = hits + REST_EVERY * figures.gain()

    def doubtful(self) -> None:
        """It may not be there any more, as after an interruption while it was prepared."""
        self.runs, self.rests = None, False

    def hand_in(self, now: float) -> None:
        """Tell the plan of what it does not know yet."""
        count, spent = self._count, self._spent
        self._count, self._spent = 0, 0.0
        self.plan.measured(count, spent, self.hits > PLANNED_ONE_BY_ONE, now)


class Holdings(OrderedDict[Variant, Held]):
    """The statements prepared on one connection, the one unused for longest first."""

    def doubt_all(self) -> None:
        """They may have been thrown away: each is closed and prepared anew when it is next used."""
        for held in self.values():
            held.doubtful()

    def all(self) -> list[Held]:
        """Every one, for a reader in another thread."""
        while True:
            try:
                return list(self.values())
            except RuntimeError:  # its thread has added one just then
                continue
