"""Whether and where this process answers questions about its pools."""

import atexit
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.control.service import Service
from django_psycopg_pooled.forking import Forks

logger = logging.getLogger(__name__)

FORK_PATIENCE_S = 0.1  # for an answer under way to end before a fork()
FORK_S = 5.0  # no fork takes longer, from then on; its end may go unsaid
EXIT_PATIENCE_S = 0.05
GONE_S = 0.002  # join() returns a moment before the system's thread is gone


class Listener:
    """Starts the process's service when its first connection opens; lives as long as the process.

    Guards: `_lock` guards `_service`, `_ending` and `_forks`.
    Invariant: no service is running while the process forks, so that a child inherits neither the
    socket nor, under gevent, the greenlet; and Python 3.12 counts no thread of ours.
    Lock order: taken last; held while a thread is started, which takes none of ours. Never held
    over a fork: a connect that the fork waits for would wait for it, and an exception that a
    signal's handler raises in a hook would leave it taken.
    """

    def __init__(self) -> None:
        # Re-entrant: a signal's handler may fork while its thread is in here.
        self._lock = threading.RLock()
        self._service: Service | None = None
        self._ending: Service | None = None  # stopped for a fork
        self._forks = Forks()
        self._directories: tuple[Path, ...] = ()
        self._answer: Callable[[bytes], bytes] | None = None
        self._is_set_up = False

    def set_up(self, directories: tuple[Path, ...], answer: Callable[[bytes], bytes]) -> None:
        """Have the next wake() begin to listen, in the first of *directories* that can be used.

        Called while the process starts. Without directories nothing will listen.
        """
        self._directories, self._answer = directories, answer
        if not self._is_set_up:
            self._is_set_up = True
            atexit.register(self._leave)
            os.register_at_fork(
                before=self._pause, after_in_parent=self._resume, after_in_child=self._restart
            )

    def wake(self) -> None:
        """Listen from now on, if nobody does yet. Any thread; does not block and never raises.

        To be called when a connection has been opened: a process that uses no database, such as
        most management commands and the masters of web servers, has no thread for this.
        """
        answer = self._answer
        if self._service is not None or answer is None or not self._directories:
            return
        with self._lock:
            if self._service is not None or self._forks.by_others(SYSTEM_CLOCK.monotonic()):
                return
            try:
                service = Service(self._directories, answer)
                service.start()
            except (OSError, RuntimeError) as error:
                # No file descriptor or no thread can be had: the next connect tries again.
                logger.debug("nobody answers questions about the pools: %s", error)
                return
            # It stays when it has failed to listen, so that this is tried and said once.
            self._service = service

    def _pause(self) -> None:
        """Before fork(): nobody begins to listen from now on."""
        with self._lock:
            self._forks.begin(SYSTEM_CLOCK.monotonic(), FORK_S)
            service = self._forget_locked()
            self._ending = service or self._ending
        if service is not None:
            service.stop(FORK_PATIENCE_S)
            SYSTEM_CLOCK.sleep(GONE_S)

    def _resume(self) -> None:
        """In the parent: the next wake() starts another service; here Python counts threads."""
        with self._lock:
            self._forks.end()
            service, self._ending = self._ending, None
        if service is not None:
            service.stop(0.0)  # again: a signal's handler may have raised before the first was done

    def _restart(self) -> None:
        """In the child, where none of the parent's threads is."""
        self._lock = threading.RLock()
        self._forks = Forks()
        services, self._ending = (self._forget_locked(), self._ending), None
        for service in services:
            if service is not None:
                service.abandon()  # in the parent its thread closes what it has

    def _forget_locked(self) -> Service | None:
        service = self._service
        if service is None or service.failed:  # one that failed is not tried again
            return None
        self._service = None
        return service

    def _leave(self) -> None:
        """At the interpreter's exit. The thread may be about to make the socket just now."""
        if self._service is not None:
            self._service.stop(EXIT_PATIENCE_S)


LISTENER = Listener()
