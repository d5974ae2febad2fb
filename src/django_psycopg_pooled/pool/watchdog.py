"""A bound on how long the pool itself waits for the server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django_psycopg_pooled.clock import Clock
from django_psycopg_pooled.drivers.protocol import Driver
from django_psycopg_pooled.runtime.protocol import Runtime


class Watchdog:
    """Hangs up on a server that does not answer what one pool asks of it; lives as long as it.

    A driver waits for an answer as long as the network lets it, which is for ever where a firewall
    swallows packets. So another thread ends the connection when check_timeout has passed.

    Guards: `_lock` guards all other attributes.
    Lock order: taken last but for the runtime's; no I/O while it is held, but for the shutdown of
    a socket, which does not wait.
    """

    def __init__(self, driver: Driver, runtime: Runtime, clock: Clock) -> None:
        self._driver = driver
        self._runtime = runtime
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Be as new, in a child of fork()."""
        self._lock = threading.Lock()
        self._watched: dict[object, tuple[float, object]] = {}
        self._armed = False

    def resume(self) -> None:
        """After fork(), in the parent, where timers may stand still: the next round trip sets one.

        They do not if a round trip is under way: that is in another thread.
        """
        self._armed = False

    @contextmanager
    def over(self, connection: object, seconds: float) -> Iterator[None]:
        """Bound a round trip that the block makes; 0 for no bound, as without worker threads."""
        if not seconds or not self._runtime.threaded:
            yield
            return
        ticket = object()
        until = self._clock.monotonic() + seconds
        try:
            self._watch(ticket, connection, until)
            yield
        finally:
            with self._lock:
                # None: in a child of fork() that ends a block which the parent has begun.
                self._watched.pop(ticket, None)

    def _watch(self, ticket: object, connection: object, until: float) -> None:
        arm = False
        try:
            with self._lock:
                self._watched[ticket] = until, connection
                arm = not self._armed
                self._armed = True
            if arm:
                self._runtime.call_at(until, self._look)
                arm = False
        finally:
            if arm:  # interrupted before there was a timer: the next one sets it
                self._armed = False

    def _look(self) -> None:
        """Hang up on those that are late, and come again for the next."""
        with self._lock:
            now = self._clock.monotonic()
            for until, connection in self._watched.values():
                if until <= now:
                    self._driver.hang_up(connection)
            waiting = [until for until, _ in self._watched.values() if until > now]
            self._armed = bool(waiting)
        if waiting:
            self._runtime.call_at(min(waiting), self._look)
