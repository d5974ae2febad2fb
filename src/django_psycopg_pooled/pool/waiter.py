"""A place in the queue for a connection."""

import threading

from django_psycopg_pooled.pool.entry import Lease


class Waiter:
    """One thread's place in the queue; lives for one wait.

    Guarded by the pool's lock, under which it is offered a loan, failed, or leaves: once it is out
    of the queue nobody can offer it anything, so a connection belongs to the pool or to one
    borrower and is never lost between them.
    """

    __slots__ = ("__weakref__", "asking", "bound", "error", "lease", "signal")

    def __init__(self, lease: Lease, *, bound: bool, asking: bool) -> None:
        self.lease = lease  # has ended until the request is served
        self.bound = bound
        # Whether this request wants a connect of its own. If not, it waits for a return first.
        self.asking = asking
        self.error: BaseException | None = None
        # Released when there is an answer, or a reason to look again. A bare lock is what Event and
        # Condition are made of, at a tenth of their cost.
        self.signal = threading.Lock()
        self.signal.acquire()

    @property
    def answered(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.error is not None or not self.lease.ended

    def fail(self, error: BaseException) -> None:
        """Wake the thread with *error*. Under the pool's lock."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Let the thread look again. Under the pool's lock, so that nobody else wakes it too."""
        if self.signal.locked():
            self.signal.release()
