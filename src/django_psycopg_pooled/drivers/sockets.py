"""Looking at an idle socket without a system call that can wait, and without a round trip."""

import os
import select
import socket

from django_psycopg_pooled.drivers.protocol import Watch


def watch_socket(fd: int) -> Watch:
    """A function that is truthy when *fd* has something to read: bytes, its end, or an error.

    About 0.4 us a call. select() would do too, but fails for descriptors from 1024 on.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll


def hang_up(fd: int) -> None:
    """Shut the socket *fd* down for both directions, so that a thread that reads it wakes.

    Its owner still has to close it. Does nothing if it is closed already.
    """
    try:
        # A second descriptor of the same socket: the first stays libpq's.
        with socket.socket(fileno=os.dup(fd)) as line:
            line.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def lead_nowhere(fd: int) -> None:
    """In a child of fork(): have *fd*, a connection of the parent's, be one that has ended.

    In this process only: whatever writes to it fails, and whatever reads finds its end. Does
    nothing if *fd* is no connected socket, or if no descriptor can be had.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as line:
            line.getpeername()
        ended, other = socket.socketpair()
        other.close()
        with ended:
            # Not close(): the driver knows the number, and the next file would have it.
            os.dup2(ended.fileno(), fd, inheritable=False)
    except OSError:
        return
