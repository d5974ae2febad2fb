"""Exceptions from one thread into another, as a worker's time limit throws them."""

import ctypes
import sys
import threading


def throw_into(thread: threading.Thread) -> None:
    """Have *thread* raise KeyboardInterrupt wherever it is."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
    )


def wake_who_starts_threads() -> None:
    """Python 3.11 throws what is for a thread into the one that it is just starting.

    That ends before it has begun, and whoever started it waits for ever; see docs/limits.md.
    """
    if sys.version_info < (3, 12):
        for thread in list(threading._limbo):  # type: ignore[attr-defined]
            thread._started.set()
