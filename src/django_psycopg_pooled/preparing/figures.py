"""Whether a text is slower prepared: what it took, and the verdict.

A generic plan can be hundreds of times worse than one made for the values: PostgreSQL compares
estimates, and stays with the generic plan once that looked cheaper. So the clock decides.

Means, not medians: the damage is in the tail, since the value for which the plan is bad may be
rare.
"""

import math
from enum import Enum

FIRST = 20  # executions from which the first mean is made; later ones weigh 1/16
WEIGHT = 1 / 16
WINDOW = 50  # prepared executions that are looked at; older ones fade
ENOUGH = 10
FACTOR, EXCESS_S = 2.0, 0.002  # what makes a window suspect: both, on average
DREADFUL, DREADFUL_S = 10.0, 0.010  # an execution of which two are enough
WORSE = 1.5


class Verdict(Enum):
    OPEN = "the trial goes on"
    FINE = "no slower prepared"
    WORSE = "slower prepared"


class Figures:
    """What one text took, in seconds; lives as long as its plan, whose lock guards it."""

    __slots__ = (
        "_dreadful",
        "_goal",
        "_trial_count",
        "_trial_spent",
        "_window_count",
        "_window_spent",
        "alert",
        "expected",
        "plain_count",
        "plain_spent",
        "prepared_count",
        "prepared_spent",
    )

    def __init__(self) -> None:
        self.plain_count = 0
        self.plain_spent = 0.0
        self.prepared_count = 0
        self.prepared_spent = 0.0
        self.expected: float | None = None  # of an execution as it is; None before the first one
        self.start_window()

    @property
    def plain_mean(self) -> float | None:
        return self.plain_spent / self.plain_count if self.plain_count else None

    def gain(self) -> int:
        """How many times as long an execution takes as it is; 1 at least, and if it is unknown."""
        if not self.prepared_spent or self.expected is None:
            return 1
        return max(1, math.ceil(self.expected * self.prepared_count / self.prepared_spent))

    def start_window(self) -> None:
        """Forget what was seen of prepared executions, for the verdict only."""
        self._window_count = 0.0
        self._window_spent = 0.0
        self._dreadful = 0
        # Every execution counts now: one was dreadful, and there are too few for a verdict.
        self.alert = False
        self._goal = 0
        self._trial_count = 0
        self._trial_spent = 0.0

    def plain(self, elapsed: float, *, in_trial: bool) -> Verdict:
        """One execution as it is."""
        self.plain_count += 1
        self.plain_spent += elapsed
        if self.plain_count <= FIRST or self.expected is None:
            self.expected = self.plain_spent / self.plain_count
        else:
            self.expected += (elapsed - self.expected) * WEIGHT
        if not in_trial:
            return Verdict.OPEN
        self._trial_count += 1
        self._trial_spent += elapsed
        if self._trial_count < self._goal:
            return Verdict.OPEN
        mean = self._trial_spent / self._trial_count
        # Whatever it is, it is what the text takes now: data and load may have changed for both.
        self.expected = mean
        seen = self._window_spent / self._window_count
        return Verdict.WORSE if seen > WORSE * mean and seen > mean + EXCESS_S else Verdict.FINE

    def prepared(self, count: int, spent: float, judged: bool) -> bool:
        """Some prepared executions. True if they are suspect: try as many as they are."""
        self.prepared_count += count
        self.prepared_spent += spent
        if not count or not judged or self.expected is None:
            return False
        if self._window_count >= WINDOW:
            self._window_count /= 2
            self._window_spent /= 2
            self._dreadful = 0
        self._window_count += count
        self._window_spent += spent
        expected = self.expected * count
        if spent > DREADFUL * expected and spent - expected > DREADFUL_S:
            self._dreadful += 1
        self.alert = self._window_count < ENOUGH and self._dreadful > 0
        if self._window_count < ENOUGH and self._dreadful < 2:
            return False
        mean = self._window_spent / self._window_count
        if mean <= FACTOR * self.expected or mean - self.expected <= EXCESS_S:
            return False
        self._goal = max(ENOUGH, round(self._window_count))
        return True

    def comparison(self) -> str:
        """The window and the trial, for people."""
        seen = self._window_spent / self._window_count * 1e3
        tried = self._trial_spent / self._trial_count * 1e3
        return f"{seen:.3g} ms prepared, {tried:.3g} ms as it is"
