"""Exceptions thrown into threads that borrow and give back, at whatever line they are."""

import ctypes
import gc
import importlib
import random
import sys
import threading
import time
from collections.abc import Callable

from django.db import connections

from benchmarks.tasks.operation import query

SEED = 20120504
PERIOD_S = 0.001
JOIN_S = 5.0


class Cancelled(BaseException):
    """Thrown into greenlets: a KeyboardInterrupt would end gevent's hub, should it escape."""


INTERRUPTS = (KeyboardInterrupt, Cancelled)


class Crew:
    """Threads that borrow and give back until stop(), interrupted or not; live for one task."""

    def __init__(self, threads: int) -> None:
        self.interrupted = 0
        self._going = True
        self._throw: dict[int, Callable[[], object]] = {}
        self._threads = [self._start(number) for number in range(threads)]

    def throw(self, number: int) -> None:
        """Throw into one of them, wherever it is."""
        if not self._threads[number].is_alive():  # it was hit outside its try
            self._threads[number] = self._start(number)
        elif number in self._throw:
            self._throw[number]()

    def stop(self) -> None:
        """Let them end, each after close(); those that wait for ever are left."""
        self._going = False
        end = time.monotonic() + JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _start(self, number: int) -> threading.Thread:
        self._throw.pop(number, None)
        thread = threading.Thread(target=self._serve, args=[number], daemon=True)
        thread.start()
        return thread

    def _serve(self, number: int) -> None:
        try:
            self._borrow()  # whatever is imported for it must not be cut off
            self._throw[number] = _thrower()
            while self._going:
                try:
                    while self._going:
                        self._borrow()
                except INTERRUPTS:
                    self.interrupted += 1
        except INTERRUPTS:
            self.interrupted += 1
        finally:
            connections.close_all()

    def _borrow(self) -> None:
        try:
            try:
                connections["default"].ensure_connection()
                if random.random() < 0.1:
                    query()
            finally:
                connections["default"].close()
        except Exception:
            pass  # a time-out for the slots lost; a connection cut off in the middle


def interrupt(threads: int, times: int, limit_s: float) -> int:
    """Interrupt a crew so many times, or until the limit; how often it was."""
    dice = random.Random(SEED)
    sys.setswitchinterval(1e-4)  # the thrower must not wait for the end of what it should hit
    crew = Crew(threads)
    end = time.monotonic() + limit_s
    while crew.interrupted < times and time.monotonic() < end:
        time.sleep(dice.random() * PERIOD_S)
        crew.throw(dice.randrange(threads))
    crew.stop()
    gc.collect()
    return crew.interrupted


def _thrower() -> Callable[[], object]:
    """What throws into the calling thread or, with gevent's patches, greenlet."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        greenlet = importlib.import_module("gevent").getcurrent()
        return lambda: greenlet.kill(Cancelled, block=False)
    ident = ctypes.c_ulong(threading.get_ident())
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    return lambda: throw(ident, ctypes.py_object(KeyboardInterrupt))
