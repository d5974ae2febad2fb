"""Connects under way in this process: none should be while it forks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.forking import Forks, restart_in_child

PAUSE_S = 0.001
FORK_S = 1.0  # for fork() itself, and the hooks of others, after the wait


class Connects:
    """Knows each connect under way, and holds new ones up while a thread forks.

    libpq, OpenSSL and the C library have locks of their own, and a child of fork() has them as they
    are just then: if another thread is inside, the child's connects wait for ever. Lives as the
    process; any thread.

    Guards: `_lock` guards all other attributes. Lock order: taken last; nothing blocks under it.
    """

    def __init__(self) -> None:
        self.restart()
        restart_in_child(self)

    def restart(self) -> None:
        """In a child of fork(): nothing is under way, and nobody forks."""
        # Re-entrant: a signal's handler may fork while its thread is in here.
        self._lock = threading.RLock()
        self._under_way: dict[object, tuple[int, float]] = {}  # in which thread, since when
        self._forks = Forks()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around a connect. Blocks while another thread forks, which is told for a few seconds."""
        ticket = object()
        try:
            while not self._has_begun(ticket):
                SYSTEM_CLOCK.sleep(PAUSE_S)
            yield
        finally:
            with self._lock:
                # None: in a child that was forked in the block.
                self._under_way.pop(ticket, None)

    def hold(self, patience_s: float) -> None:
        """Before fork(): have no other begin, and wait for those under way in other threads.

        Not for one that is older than *patience_s*: that waits for the network, in no lock.
        """
        with self._lock:
            self._forks.begin(SYSTEM_CLOCK.monotonic(), patience_s + FORK_S)
        try:
            self._wait_for_those_younger_than(patience_s)
        except BaseException:
            # A signal's handler has raised; Python will fork all the same. It takes no longer.
            self._wait_for_those_younger_than(patience_s)
            raise

    def go_on(self) -> None:
        """After fork(), in the parent."""
        with self._lock:
            self._forks.end()

    def _has_begun(self, ticket: object) -> bool:
        now = SYSTEM_CLOCK.monotonic()
        with self._lock:
            held_up = self._forks.by_others(now)
            if not held_up:
                self._under_way[ticket] = threading.get_ident(), now
            return not held_up

    def _wait_for_those_younger_than(self, seconds: float) -> None:
        while self._is_one_younger_than(seconds):
            SYSTEM_CLOCK.sleep(PAUSE_S)

    def _is_one_younger_than(self, seconds: float) -> bool:
        me, now = threading.get_ident(), SYSTEM_CLOCK.monotonic()
        with self._lock:
            under_way = list(self._under_way.values())
        return any(thread != me and now - since < seconds for thread, since in under_way)


CONNECTS = Connects()
