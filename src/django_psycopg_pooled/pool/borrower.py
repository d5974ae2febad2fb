"""The thread that borrows."""

import threading


class Borrower:
    """One thread of the program, as the pool knows it; outlives the thread in the loans it took.

    Not its ident alone, which the system gives to another thread as soon as this one has ended.
    """

    __slots__ = ("alive", "ident", "name")

    def __init__(self) -> None:
        thread = threading.current_thread()
        self.ident = threading.get_ident()
        self.name = thread.name
        self.alive = True

    def title(self) -> str:
        """Its name for people."""
        return self.name if self.alive else f"{self.name} (ended)"


class _Life:
    """Lives in a thread's own storage, and so goes when the thread does."""

    __slots__ = ("borrower",)

    def __init__(self, borrower: Borrower) -> None:
        self.borrower = borrower

    def __del__(self) -> None:
        self.borrower.alive = False


_local = threading.local()


def borrower() -> Borrower:
    """This thread's. With gevent's patches, this greenlet's."""
    try:
        return _local.borrower  # type: ignore[no-any-return]
    except AttributeError:
        _local.borrower = borrower = Borrower()
        _local.life = _Life(borrower)
        return borrower
