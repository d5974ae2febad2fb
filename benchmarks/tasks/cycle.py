"""Operations one after the other in one thread, each timed."""

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.tasks.operation import operate

WARM_UP = 20


# As web servers do, whose frames end what is noted as the user's lines: those of the benchmark
# itself must not be among them. It lasts, and with it the connection of a peer that keeps one.
_thread = ThreadPoolExecutor(1)


def cycle(operations: int, seconds: float) -> list[int]:
    """Nanoseconds of each of *operations*; of fewer, if *seconds* are over."""
    return _thread.submit(_cycle, operations, seconds).result()


def _cycle(operations: int, seconds: float) -> list[int]:
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
