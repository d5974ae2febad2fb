"""Where the garbage collector runs.

It runs in any thread, between any two lines, also under a lock; and so do the finalizers that it
calls: of a generator, say, whose with block had a connection. What they do must not wait for a lock
that their own thread may have.
"""

import gc
from threading import get_ident


class Collector:
    """Knows the thread that the garbage collector interrupts just now; lives as the process."""

    thread = 0  # 0 while it does not run

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        self.thread = get_ident() if phase == "start" else 0

    def is_here(self) -> bool:
        """Whether the caller is a finalizer that it has called."""
        return self.thread == get_ident()


COLLECTOR = Collector()
gc.callbacks.append(COLLECTOR)
