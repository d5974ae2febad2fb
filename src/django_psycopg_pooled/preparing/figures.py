"""Whether a text is slower prepared: what it took, and the verdict.

A generic plan can be hundreds of times worse than one made for the values: PostgreSQL compares
estimates, and stays with the generic plan once that looked cheaper. So the clock decides.

Means, not medians: the damage is in the tail, since the value for which the plan is bad may be
rare. But a tail is made of few executions, and now and then any statement waits for a lock or a
busy machine. So a verdict also needs slow executions that chance would not have put all into the
prepared ones: the fewer they were, the longer the text runs as it is before it is said to be worse.
"""

import math
from enum import Enum

FIRST = 20  # executions from which the first mean is made; later ones weigh 1/64
WEIGHT = 1 / 64
WINDOW = 50  # prepared executions that are looked at; older ones fade
ENOUGH = 10
FACTOR, EXCESS_S = 2.0, 0.002  # what makes an execution slow, and a window suspect: both
DREADFUL, DREADFUL_S = 10.0, 0.010  # an execution of which two are enough
WORSE = 1.5
# The chance of so many slow ones below which it is worse, or above which it is fine.
SURE, FUTILE = 0.02, 0.2
LONGEST = 2000  # executions in a trial
MOST_DOUBTED = 3  # acquittals, each of which asks for one slow execution more


class Verdict(Enum):
    OPEN = "the trial goes on"
    FINE = "no slower prepared"
    WORSE = "slower prepared"


class Sample:
    """What some executions took, in seconds, and which of them were slow."""

    __slots__ = ("count", "slow", "slow_spent", "slowest", "spent")

    def __init__(self) -> None:
        self.count = self.slow = 0
        self.spent = self.slow_spent = self.slowest = 0.0

    def add(self, spent: float, bar: float = math.inf, count: int = 1) -> None:
        """*count* executions that took *spent*; one of them was slow if that exceeds *bar*."""
        self.count += count
        self.spent += spent
        self.slowest = max(self.slowest, spent)
        if spent > bar:
            self.slow += 1
            self.slow_spent += spent

    def fade(self) -> None:
        self.count //= 2
        self.spent /= 2
        self.slow //= 2
        self.slow_spent /= 2

    @property
    def mean(self) -> float:
        return self.spent / self.count

    @property
    def usual(self) -> float:
        """The mean without the slowest one, which may have met cold caches or a busy machine."""
        return (self.spent - self.slowest) / (self.count - 1) if self.count > 2 else self.mean


def chance(seen: Sample, other: Sample) -> float:
    """How likely *seen* has so many of all slow ones, or more, if it makes no difference which.

    The tail of a binomial distribution; by logarithms, for its coefficients exceed a float.
    """
    slow = seen.slow + other.slow
    ours = math.log(seen.count / (seen.count + other.count))
    theirs = math.log(other.count / (seen.count + other.count))
    return sum(
        math.exp(
            math.lgamma(slow + 1) - math.lgamma(k + 1) - math.lgamma(slow - k + 1)
            + k * ours + (slow - k) * theirs
        )
        for k in range(seen.slow, slow + 1)
    )  # fmt: skip


class Figures:
    """What one text took, in seconds; lives as long as its plan, whose lock guards it."""

    __slots__ = (
        "_acquitted",
        "_bar",
        "_dreadful",
        "_first",
        "_look_at",
        "_trial",
        "_window",
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
        self._first = Sample()
        self._acquitted = 0
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
        self._window = Sample()
        self._dreadful = 0
        # Every execution counts now: one was dreadful, and there are too few for a verdict.
        self.alert = False
        self._trial = Sample()
        self._bar = math.inf  # what is as slow in the trial as what was slow in the window
        self._look_at = ENOUGH

    def plain(self, elapsed: float, *, in_trial: bool) -> Verdict:
        """One execution as it is."""
        self.plain_count += 1
        self.plain_spent += elapsed
        if self.plain_count <= FIRST or self.expected is None:
            self._first.add(elapsed)
            self.expected = self._first.usual
        elif not in_trial:
            self.expected += (elapsed - self.expected) * WEIGHT
        return self._tried(elapsed) if in_trial else Verdict.OPEN

    def _tried(self, elapsed: float) -> Verdict:
        trial = self._trial
        trial.add(elapsed, self._bar)
        if trial.count < self._look_at:
            return Verdict.OPEN
        # Seldom: whoever looks all the time finds a moment at which chance is on one side.
        self._look_at *= 2
        verdict = self._verdict()
        if verdict is not Verdict.OPEN:
            # That is what the text takes now: data and load may have changed for both.
            self.expected = trial.mean
            self._acquitted += verdict is Verdict.FINE
        return verdict

    def _verdict(self) -> Verdict:
        window, trial = self._window, self._trial
        if not self._is_worse_than(trial.usual):
            return Verdict.FINE
        by_chance = chance(window, trial)
        if by_chance <= SURE:
            return Verdict.WORSE
        futile = trial.slow and by_chance > FUTILE
        return Verdict.FINE if futile or trial.count >= LONGEST else Verdict.OPEN

    def _is_worse_than(self, mean: float) -> bool:
        seen = self._window.mean
        return seen > WORSE * mean and seen > mean + EXCESS_S

    def prepared(self, count: int, spent: float, judged: bool) -> bool:
        """Some prepared executions. True if they are suspect: try how it is without."""
        self.prepared_count += count
        self.prepared_spent += spent
        if not count or not judged or self.expected is None:
            return False
        window = self._window
        if window.count >= WINDOW:
            window.fade()
            self._dreadful = 0
        expected = self.expected * count
        slow = (FACTOR - 1) * self.expected + EXCESS_S
        window.add(spent, expected + slow, count)
        if spent > DREADFUL * expected and spent - expected > DREADFUL_S:
            self._dreadful += 1
        self.alert = window.count < ENOUGH and self._dreadful > 0
        if window.count < ENOUGH and self._dreadful < 2:
            return False
        if window.slow <= min(self._acquitted, MOST_DOUBTED):
            return False
        self._bar = max(self.expected + slow, window.slow_spent / window.slow / 2)
        return window.mean > FACTOR * self.expected and window.mean - self.expected > EXCESS_S

    def comparison(self) -> str:
        """The window and the trial, for people."""
        seen, tried = self._window.mean * 1e3, self._trial.mean * 1e3
        return f"{seen:.3g} ms prepared, {tried:.3g} ms as it is"
