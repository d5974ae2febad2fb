"""How much this process grows with each open connection."""

import ctypes
import gc
import threading
import tracemalloc
from typing import Any

import psutil
from django.db import connections, transaction

from benchmarks.tasks.operation import query
from benchmarks.tasks.spike import PATIENCE_S, load, warm
from benchmarks.tasks.together import Start, together

_drivers_own: list[Any] = []


def pool_growth(count: int, traced: bool) -> float:
    """Bytes per idle connection, from the second to the last of *count* in the peer's pool."""
    return _growth(warm, count, traced)


def driver_growth(count: int, traced: bool) -> float:
    """The same for connections that nobody pools, opened and used by Django as the peers' are."""
    return _growth(_open, count, traced)


def _open(count: int) -> None:
    new = count - len(_drivers_own)
    all_have_one = threading.Barrier(new)

    def connect(start: Start) -> None:
        start()
        wrapper = connections["plain"]
        with transaction.atomic("plain"):  # the buffers of a used connection are larger
            query(alias="plain")
            # As many threads at the same time as with a pool: what they leave is in RSS, too.
            all_have_one.wait(PATIENCE_S)
        _drivers_own.append(wrapper.connection)
        wrapper.connection = None

    together(new, connect)


def _growth(reach: Any, count: int, traced: bool) -> float:
    """*reach* opens connections until there are as many as its argument."""
    load()
    if traced:
        tracemalloc.start()
    # Twice, because the first use of threads and of the pool takes memory of its own.
    reach(1)
    reach(2)
    before = _used(traced)
    reach(count)
    return (_used(traced) - before) / (count - 2)


def _used(traced: bool) -> int:
    gc.collect()
    if traced:
        return tracemalloc.get_traced_memory()[0]
    _give_back_what_is_free()
    return int(psutil.Process().memory_info().rss)


def _give_back_what_is_free() -> None:
    """Have the C library return unused memory: ended threads leave it some."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
