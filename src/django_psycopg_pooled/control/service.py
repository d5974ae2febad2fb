"""One socket, and the thread that answers on it."""

import contextlib
import logging
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.control.places import UNHEARD, Unusable, new_path, prepare, sweep
from django_psycopg_pooled.control.protocol import LONGEST_REQUEST

logger = logging.getLogger(__name__)

READ_S = 2.0  # for a client to send its line: a program does so at once
WRITE_S = 5.0  # for it to read the answer
FULL_PAUSE_S = 1.0  # when the process has no file descriptors left


class Service:
    """A listening socket and its thread; lives from a process's first connect to its exit or fork.

    Nothing that a client does holds the thread for longer than READ_S + WRITE_S, beside what is
    asked; clients are answered one after the other.

    The thread is a daemon and only sleeps while nobody asks. A failure to listen is logged, and
    ends it. stop() may be called by any thread.
    """

    def __init__(self, directories: tuple[Path, ...], answer: Callable[[bytes], bytes]) -> None:
        self._directories = directories
        self._answer = answer
        self.failed = False  # to listen; that is said once
        self._path: Path | None = None
        self._listening: socket.socket | None = None
        # The thread sleeps until a client comes, or stop() closes the other end of this.
        self._woken, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="pool-control", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if none can be had."""
        try:
            self._thread.start()
        except RuntimeError:
            self.abandon()
            raise

    def stop(self, patience: float) -> bool:
        """Stop listening; True if the thread has ended, within *patience* seconds."""
        with contextlib.suppress(OSError):
            self._waker.shutdown(socket.SHUT_RDWR)
        self._thread.join(patience)
        self._remove()
        return not self._thread.is_alive()

    def _remove(self) -> None:
        """Remove the socket's file, so that nobody finds it."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close what is open: for the thread, or after fork(), when it is no longer there."""
        for each in (self._woken, self._waker, self._listening):
            if each is not None:
                each.close()

    def _run(self) -> None:
        try:
            try:
                listening = self._listen()
            except (OSError, Unusable) as error:
                self.failed = True
                logger.warning(
                    "nobody can look at this process's pools by manage.py pools: %s. To do: have"
                    " CONTROL_DIR in settings.DJANGO_PSYCOPG_POOLED name a directory of this"
                    " user's own, with a short path; or None.",
                    error,
                )
                return
            with contextlib.suppress(OSError):
                while self._client_comes(listening):
                    self._serve(listening)
        finally:
            self._remove()
            self.abandon()

    def _listen(self) -> socket.socket:
        directory = prepare(self._directories)
        sweep(directory)
        path = new_path(directory)
        self._path = unheard = path.with_suffix(UNHEARD)
        listening = self._listening = socket.socket(socket.AF_UNIX)
        listening.setblocking(False)  # a client may have gone before it is accepted
        listening.bind(str(unheard))
        unheard.chmod(0o600)  # before anybody can connect
        listening.listen()
        self._path = unheard.rename(path)  # whoever finds it is heard
        return listening

    def _client_comes(self, listening: socket.socket) -> bool:
        """Sleep until a client is there (True), or stop() is called (False)."""
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        return self._woken.fileno() not in ready

    def _serve(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            self._woken.settimeout(FULL_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                self._woken.recv(1)
            return
        with client, contextlib.suppress(OSError):
            line = _read_line(client)
            if line is not None:
                client.settimeout(WRITE_S)
                client.sendall(self._answer(line))


def _read_line(client: socket.socket) -> bytes | None:
    """What the client sends, up to the first line break; None if it goes without one.

    Ends soon after LONGEST_REQUEST bytes, and after READ_S, however slowly they come. Raises
    OSError.
    """
    deadline = SYSTEM_CLOCK.monotonic() + READ_S
    line = bytearray()
    while b"\n" not in line and len(line) <= LONGEST_REQUEST:
        client.settimeout(max(deadline - SYSTEM_CLOCK.monotonic(), 0.001))
        part = client.recv(16 * 1024)
        if not part:
            return None
        line += part
    return bytes(line.partition(b"\n")[0])
