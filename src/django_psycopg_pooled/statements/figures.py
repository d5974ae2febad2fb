"""What the statements of one fingerprint have cost, and who executed them."""

import math
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django_psycopg_pooled.facts.queries import CallerShare, QueryFacts
from django_psycopg_pooled.stats.histogram import Histogram

if TYPE_CHECKING:
    from django_psycopg_pooled.statements.journal import Execution

CALLERS = 8  # lines of code, and works, that are told apart for one statement
_KINDS_OF_ERRORS = 16
OTHER_ERRORS = "other"
_UNITS = 32  # requests under way, and some that are over; beyond that, the older half goes

V = TypeVar("V")


class Top(Generic[V]):
    """The most frequent of any number of things, in the space of CALLERS.

    Who is not among them takes the place of the least frequent, and its count: so a count is never
    too low, and whoever makes more than an eighth of all is here.
    Source: "space-saving", Metwally, Agrawal, El Abbadi 2005.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[Any, _Counted[V]] = {}

    def add(self, key: Any, what: V, times: int = 1) -> None:
        counts = self.counts
        known = counts.get(key)
        if known is not None:
            known.times += times
            return
        before = 0
        if len(counts) >= CALLERS:
            before = counts.pop(min(counts, key=lambda k: counts[k].times)).times
        counts[key] = _Counted(before + times, what)

    def merge(self, other: "Top[V]") -> None:
        for key, counted in other.counts.items():
            self.add(key, counted.what, counted.times)


class _Counted(Generic[V]):
    __slots__ = ("times", "what")

    def __init__(self, times: int, what: V) -> None:
        self.times = times
        self.what = what


class Family:
    """The figures of one fingerprint; lives until the journal forgets it.

    Guarded by the journal's lock. A copy belongs to whoever asked for it.
    """

    __slots__ = (
        "_callers",
        "_errors",
        "_first",
        "_last",
        "_max",
        "_min",
        "_most",
        "_prepared",
        "_prepared_total",
        "_rows",
        "_suspects",
        "_total",
        "_units",
        "_waited",
        "_works",
        "calls",
        "durations",
        "forgotten",
        "recent",
        "text",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls = 0
        self.recent = 0  # calls since the journal last made room
        self.forgotten = False  # by the journal: what comes is to be counted elsewhere
        self._errors: dict[str, int] = {}
        self._rows = 0
        self._total = self._max = self._waited = 0.0
        self._min = math.inf
        self.durations = Histogram()
        self._prepared = 0
        self._prepared_total = 0.0
        # By the code's id: its hash is that of all its contents. The value keeps it alive.
        self._callers: Top[tuple[CodeType, int]] = Top()
        self._works: Top[str] = Top()
        # In each unit of work of late: the parameters' mark, or as soon as there are others _Marks.
        self._units: dict[object, int | _Marks] = {}
        self._suspects = self._most = 0
        self._first = self._last = 0.0

    def add(self, execution: "tuple[Any, ...] | Execution", now: float, n_plus_one: int) -> None:
        """Count one execution, or a tuple like one.

        now          wall time
        n_plus_one   how often one unit of work may execute it with different parameters
        """
        _, unit, work, place, elapsed, rows, waited, mark, sqlstate, prepared = execution
        self.calls += 1
        self.recent += 1
        self._last = now
        self._total += elapsed
        if elapsed < self._min:
            self._min = elapsed
        if elapsed > self._max:
            self._max = elapsed
        self.durations.record(elapsed)
        if rows > 0:
            self._rows += rows
        if prepared:
            self._prepared += 1
            self._prepared_total += elapsed
        if waited:
            self._waited += waited
        if sqlstate is not None:
            self._fail(sqlstate, 1)
        if self.calls == 1:
            self._first = now
        # Not add(): a call for each would cost a fifth of all this.
        caller = self._callers.counts.get(key := (id(place[0]), place[1]))
        if caller is not None:
            caller.times += 1
        else:
            self._callers.add(key, place)
        if work is not None:
            label = self._works.counts.get(work.text)
            if label is not None:
                label.times += 1
            else:
                self._works.add(work.text, work.text)
        if mark is not None:
            known = self._units.get(unit)
            if known is None:
                self._meet(unit, mark)
            elif isinstance(known, int):
                if known != mark:
                    self._units[unit] = marks = _Marks(known)
                    self._repeat(marks, mark, n_plus_one)
            else:
                self._repeat(known, mark, n_plus_one)

    def merge(self, other: "Family") -> None:
        """Add what *other* has counted, here or in another process."""
        if not other.calls:
            return
        self._first = min(self._first, other._first) if self.calls else other._first
        self._last = max(self._last, other._last)
        self.calls += other.calls
        self.recent += other.recent
        for sqlstate, times in other._errors.items():
            self._fail(sqlstate, times)
        self._rows += other._rows
        self._total += other._total
        self._min = min(self._min, other._min)
        self._max = max(self._max, other._max)
        self.durations.merge(other.durations)
        self._waited += other._waited
        self._prepared += other._prepared
        self._prepared_total += other._prepared_total
        self._callers.merge(other._callers)
        self._works.merge(other._works)
        self._suspects += other._suspects
        self._most = max(self._most, other._most)

    def copy(self) -> "Family":
        """The same figures, which do not change any more."""
        copy = Family(self.text)
        copy.merge(self)
        return copy

    def facts(self, place: Callable[[tuple[CodeType, int]], str]) -> QueryFacts:
        """The figures for readers; *place* makes text of a raw line of code. Worst case: 0.2 ms."""
        plain = self.calls - self._prepared
        return QueryFacts(
            text=self.text,
            calls=self.calls,
            errors=self._failures(),
            errors_by_sqlstate=dict(self._errors),
            rows=self._rows,
            total_s=self._total,
            mean_s=_mean(self._total, self.calls),
            min_s=self._min if self.calls else 0.0,
            max_s=self._max,
            p50_s=self._percentile(50),
            p95_s=self._percentile(95),
            p99_s=self._percentile(99),
            waited_s=self._waited,
            plain_calls=plain,
            plain_mean_s=_mean(self._total - self._prepared_total, plain),
            prepared_calls=self._prepared,
            prepared_mean_s=_mean(self._prepared_total, self._prepared),
            callers=self._shares(self._callers, place),
            works=self._shares(self._works, str),
            n_plus_one=self._suspects,
            n_plus_one_most=self._most,
            first_seen=self._first,
            last_seen=self._last,
        )

    def _meet(self, unit: object, mark: int) -> None:
        units = self._units
        if len(units) >= _UNITS:
            for old in list(units)[: _UNITS // 2]:
                del units[old]
        units[unit] = mark

    def _repeat(self, marks: "_Marks", mark: int, n_plus_one: int) -> None:
        if marks.kept is not None:
            marks.kept.add(mark)
            if len(marks.kept) <= n_plus_one:
                return
            # Suspect from here on: how often it goes on matters, no longer with what.
            marks.times = len(marks.kept)
            marks.kept = None
            self._suspects += 1
        else:
            marks.times += 1
        self._most = max(self._most, marks.times)

    def _fail(self, sqlstate: str, times: int) -> None:
        errors = self._errors
        if sqlstate not in errors and len(errors) >= _KINDS_OF_ERRORS:
            sqlstate = OTHER_ERRORS
        errors[sqlstate] = errors.get(sqlstate, 0) + times

    def _failures(self) -> int:
        return sum(self._errors.values())

    def _percentile(self, percent: float) -> float:
        """The histogram's, which knows buckets only, within what was really seen."""
        return min(max(self.durations.percentile(percent), self._min), self._max)

    def _shares(self, top: Top[V], text_of: Callable[[V], str]) -> tuple[CallerShare, ...]:
        times_of: dict[str, int] = {}
        for counted in top.counts.values():
            text = text_of(counted.what)  # one for several places of one line of code
            times_of[text] = times_of.get(text, 0) + counted.times
        return tuple(
            CallerShare(text, times, min(1.0, times / self.calls))
            for text, times in sorted(times_of.items(), key=lambda known: -known[1])
        )


class _Marks:
    """The different parameters of one statement in one unit of work; lives as long as that does."""

    __slots__ = ("kept", "times")

    def __init__(self, first: int) -> None:
        self.kept: set[int] | None = {first}  # hashes; None when there were too many
        self.times = 0


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0


# How families can be set in order, by the words that users say.
RANKS: dict[str, Callable[[Family], float]] = {
    "total_time": lambda family: family._total,
    "calls": lambda family: family.calls,
    "mean": lambda family: _mean(family._total, family.calls),
    "p95": lambda family: family._percentile(95),
    "rows": lambda family: family._rows,
    "errors": Family._failures,
    "n_plus_one": lambda family: family._suspects,
}
