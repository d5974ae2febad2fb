"""Ctrl-C, kill and a closed terminal: all end the demo, but never between two steps of a start."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_interrupted = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if there was one. Loops that wait call this, because Python drops
    an exception that is raised in a destructor or a hook; then nothing would ever end them."""
    if _interrupted:
        raise KeyboardInterrupt


def end_on_signals() -> None:
    """From now on each ending signal raises KeyboardInterrupt. Main thread."""
    for number in ENDING:
        signal.signal(number, _interrupt)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep ending signals waiting, so that what is started is also noted, and what is being
    stopped gets stopped. Programs started inside inherit this: initdb and pg_ctl are meant to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listen_again() -> None:
    """In a child process before it becomes the program: let signals through."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
