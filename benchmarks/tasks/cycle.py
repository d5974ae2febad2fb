"""Operations one after the other in one thread, each timed."""

import time

from benchmarks.tasks.operation import operate

WARM_UP = 20


def cycle(operations: int, seconds: float) -> list[int]:
    """Nanoseconds of each of *operations*; of fewer, if *seconds* are over."""
    for _ in range(min(WARM_UP, operations)):
        operate()
    clock = time.perf_counter_ns
    times = []
    end = clock() + int(seconds * 1e9)
    for _ in range(operations):
        began = clock()
        operate()
        ended = clock()
        times.append(ended - began)
        if ended > end:
            break
    return times
