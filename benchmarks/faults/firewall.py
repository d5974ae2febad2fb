"""A firewall that forgets connections; lives as long as the proxy it is."""

import asyncio
import contextlib

from devtools.proxy import CHUNK, TcpProxy


class Firewall(TcpProxy):
    """A proxy with forget(), which unlike blackhole() lets new connections through."""

    def forget(self) -> None:
        """Forward nothing more on the connections that are open; nobody is told."""
        self._do(self._forget)

    def _forget(self) -> None:
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float = 0.0
    ) -> None:
        flowing = self._flowing  # of the connections opened between two forget()s
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                await flowing.wait()
                sink.write(chunk)
                await sink.drain()
