"""The pool's own exceptions, without a driver. Each driver adapter derives its own from these.

Every one has a code that never changes and a text in four parts: what happened, with numbers; the
state of the pool; the likely cause; what to do, each step with its cost. The numbers are in the
text, because Django rebuilds an exception of a driver from its text alone.
"""


class PoolError(Exception):
    """What a pool refuses. Caught as the driver's OperationalError too."""

    code = "P100"


class PoolTimeout(PoolError):
    """No connection within the request's timeout."""

    code = "P101"


class TooManyRequests(PoolError):
    """The queue is as long as `max_waiting` allows."""

    code = "P102"


class PoolClosed(PoolError):
    """The pool was closed before or while the request waited."""

    code = "P103"


class OptionsError(ValueError):
    """Pool options that cannot be used; `problems` says each, one sentence or two an item."""

    code = "P104"

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(f"[{self.code}] " + "\n".join(problems))


class NotBorrowed(ValueError):
    """A connection was given back that the pool has not lent."""

    code = "P105"


class FinalizerRefused(RuntimeError):
    """A finalizer that the garbage collector called wants a connection; its thread has the lock."""

    code = "P106"
