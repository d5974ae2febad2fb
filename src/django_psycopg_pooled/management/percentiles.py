"""What percentiles of one statement are over several processes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.stats.histogram import Histogram

PERCENTS = {"p50_s": 50, "p95_s": 95, "p99_s": 99}


class Percentiles:
    """The durations of one statement, a pool after the other; lives for one answer.

    A process of an older version tells its own percentiles alone. Those of all are not above the
    highest of the parts.
    """

    def __init__(self) -> None:
        self._histogram = Histogram()
        self._pools = 0
        self._unmerged: list[QueryFacts] = []

    def add(self, own: QueryFacts, durations: object) -> None:
        """*own*: the figures of one pool; *durations*: its histogram as JSON, None without."""
        self._pools += 1
        histogram = Histogram.of_json(durations)
        if histogram is None:
            self._unmerged.append(own)
        else:
            self._histogram.merge(histogram)

    @property
    def at_most(self) -> bool:
        """Whether of() tells what they are at most, for the durations of some are not known."""
        return self._pools > 1 and bool(self._unmerged)

    def of(self, merged: QueryFacts) -> QueryFacts:
        """The figures of all with the percentiles of all."""
        if self._pools == 1:
            return merged  # as that one has told them
        known: Mapping[str, Any] = {
            name: max(
                self._percentile(percent, merged) if self._histogram.buckets else 0.0,
                *(getattr(own, name) for own in self._unmerged),
                0.0,
            )
            for name, percent in PERCENTS.items()
        }
        return replace(merged, **known)

    def _percentile(self, percent: int, merged: QueryFacts) -> float:
        """The histogram's, which knows buckets only, within what was really seen."""
        return min(max(self._histogram.percentile(percent), merged.min_s), merged.max_s)
