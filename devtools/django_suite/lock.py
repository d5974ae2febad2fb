"""One run at a time in a checkout: a second one would reinstall the package under the first."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from devtools.django_suite.errors import SuiteError


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """Hold the lock of *work*, which is made if needed. Does not wait: raises SuiteError."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SuiteError("Another run is under way in this checkout: wait for it.") from None
        yield
