"""Durations in buckets that grow by a twelfth each, so that percentiles are right to 4.4 %."""

from collections.abc import Mapping
from math import ceil, log2
from typing import Any

SCALE = 3
_PER_OCTAVE = 2**SCALE
SHORTEST = 1e-9  # seconds: what is shorter, or 0, counts as a nanosecond
LONGEST = 1e6  # seconds: and what is longer as eleven days; so there are 400 buckets at the most


class Histogram:
    """OpenTelemetry's base-2 exponential histogram of scale 3, over float seconds.

    Seconds, as drivers' clocks give them: whole nanoseconds would cost a multiplication and a call
    for each record. Bucket i holds what is longer than 2**(i/8) s and not longer than 2**((i+1)/8).
    Count, sum, least and greatest are kept by whoever owns it. Not safe between threads.
    Source: OpenTelemetry's data model for metrics, "ExponentialHistogram".
    """

    __slots__ = ("buckets",)

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: dict[int, int] = dict(buckets or {})

    def record(self, seconds: float) -> None:
        """Count one duration. Does not block."""
        if not SHORTEST <= seconds <= LONGEST:
            seconds = LONGEST if seconds > LONGEST else SHORTEST
        bucket = ceil(log2(seconds) * _PER_OCTAVE) - 1
        buckets = self.buckets
        # Not get(): nearly all durations of one statement fall into buckets that are there.
        try:
            buckets[bucket] += 1
        except KeyError:
            buckets[bucket] = 1

    def merge(self, other: "Histogram") -> None:
        """Add what *other* has counted; exact, in any order."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def as_json(self) -> dict[str, Any]:
        """What of_json() takes. Only buckets that are not empty: some dozens of a statement's."""
        return {"scale": SCALE, "buckets": self.buckets}

    @classmethod
    def of_json(cls, told: object) -> "Histogram | None":
        """What as_json() has told another process, whose keys JSON has made texts.

        None for anything else: no histogram, or one of a version with other buckets.
        """
        if not isinstance(told, Mapping) or told.get("scale") != SCALE:
            return None
        return cls({int(bucket): count for bucket, count in told["buckets"].items()})

    def percentile(self, percent: float) -> float:
        """The duration, in seconds, that *percent* of all were not longer than; 0.0 if it is empty.

        The middle of a bucket: at most 4.4 % away from the true one, which may be in any place of
        it. Raises ValueError for a percentage outside 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent is {percent!r}; it must be from 0 to 100.")
        rank = ceil(sum(self.buckets.values()) * percent / 100) or 1
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return float(2.0 ** ((bucket + 0.5) / _PER_OCTAVE))
        return 0.0
