"""A connection of one's own, beside the pool's slots."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from django_psycopg_pooled.pool.core import Core

Hook = Callable[[Any], object]
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class Dedicated:
    """One connection for LISTEN, advisory locks, replication; closed at the end of its with block.

    It takes none of max_size, and nobody else is ever lent it. One thread at a time.

        with pool.dedicated(on_connect=listen) as line:
            while True:
                try:
                    wait_for(line.connection)
                except OperationalError:
                    line.reconnect()

    on_connect   called with each new connection, in autocommit
    """

    def __init__(self, core: Core, on_connect: Hook | None) -> None:
        self._core = core
        self._on_connect = on_connect
        self.connection: Any = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Close it; reconnect() opens it again."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._core.driver.close(connection)

    def reconnect(self, timeout: float | None = None) -> None:
        """Replace the connection, and call on_connect with the new one.

        timeout   seconds to keep trying; None for the pool's `timeout`

        Blocks, with growing pauses from 0.1 to 5 s between attempts. Raises what the last attempt
        raised; at once if waiting cannot help, such as with a wrong password.
        """
        core = self._core
        self.close()
        deadline = core.clock.monotonic() + (core.options.timeout if timeout is None else timeout)
        pause = FIRST_PAUSE_S
        while True:
            try:
                self._open()
                return
            except Exception as error:
                left = deadline - core.clock.monotonic()
                if core.driver.is_permanent(error) or left <= 0:
                    raise
            core.clock.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _open(self) -> None:
        core = self._core
        connection = core.connect()
        done = False
        try:
            core.driver.tidy(connection)
            for hook in (core.options.configure, self._on_connect):
                if hook is not None:
                    hook(connection)
            done = True
        finally:
            if not done:
                core.driver.close(connection)
        self.connection = connection
        core.own(self)
