"""More requests than the connections can serve, as many a second whatever becomes of them."""

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from django.db import OperationalError

from benchmarks.tasks.operation import close, query
from benchmarks.tasks.together import Start, together


@dataclass
class Outcome:
    """What became of the requests: the nanoseconds that each took, by how it ended."""

    served_ns: list[int] = field(default_factory=list)
    refused_ns: list[int] = field(default_factory=list)  # TooManyRequests
    late_ns: list[int] = field(default_factory=list)  # PoolTimeout
    other: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def offered(self) -> int:
        """How many requests there were."""
        return len(self.served_ns) + len(self.refused_ns) + len(self.late_ns) + len(self.other)


def overload(threads: int, per_second: float, seconds: float, sql: str) -> dict[str, Any]:
    """Offer so much load to the default database; per_second=0 for as much as is served."""

    def request() -> None:
        try:
            query(sql)
        finally:
            close()

    return asdict(offer(threads, per_second, seconds, request))


def offer(
    threads: int, per_second: float, seconds: float, request: Callable[[], object]
) -> Outcome:
    """Begin so many requests a second, spread over the threads, which must be enough for them.

    A thread whose request takes longer begins its next one at once: it does not catch up.
    """
    pause = threads / per_second if per_second else 0.0
    numbers = itertools.count()

    def run(start: Start) -> Outcome:
        offset = pause * next(numbers) / threads
        began = start()
        return _offer_until(began + offset, began + seconds, pause, request)

    began = time.perf_counter()
    parts = together(threads, run)
    # Not *seconds*: who waited at their end was served later.
    whole = Outcome(seconds=time.perf_counter() - began)
    for part in parts:
        whole.served_ns += part.served_ns
        whole.refused_ns += part.refused_ns
        whole.late_ns += part.late_ns
        whole.other += part.other
    return whole


def _offer_until(at: float, until: float, pause: float, request: Callable[[], object]) -> Outcome:
    outcome = Outcome()
    while at < until:
        time.sleep(max(at - time.perf_counter(), 0.0))
        before = time.perf_counter_ns()
        try:
            request()
            times = outcome.served_ns
        except OperationalError as error:
            kind = type(error.__cause__).__name__
            known = {"TooManyRequests": outcome.refused_ns, "PoolTimeout": outcome.late_ns}
            if kind not in known:
                outcome.other.append(f"{kind}: {error}")
            times = known.get(kind, [])
        times.append(time.perf_counter_ns() - before)
        at = max(at + pause, time.perf_counter())
    return outcome
