"""A TCP proxy that makes a network slow or broken on purpose; a thread, from start() to stop().

    with TcpProxy("127.0.0.1", server.port, connect_delay_s=0.150) as proxy:
        connect(host=proxy.host, port=proxy.port)   # takes 150 ms longer
        proxy.drop()                                # ends all connections, as a crash would
        proxy.blackhole()                           # swallows everything, as a firewall would

It costs about 0.15 ms a round trip: nothing beside the delays it is for, too much for microseconds.
"""

import asyncio
import concurrent.futures
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
CHUNK = 65536
LIMIT_S = 10.0  # for what the loop does at once; only a blocked loop takes longer
LINGER_NOT = struct.pack("ii", 1, 0)  # close() then sends a reset


class TcpProxy:
    """Forwards each connection to one server; the methods may be called from any thread.

    All state belongs to the event loop's thread; the public methods hand their work to it and
    wait at most LIMIT_S.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        upstream_host: str,
        upstream_port: int,
        *,
        connect_delay_s: float = 0.0,
        way_delay_s: float = 0.0,
    ) -> None:
        """*way_delay_s*: how much later all that clients send reaches the server."""
        self._upstream = (upstream_host, upstream_port)
        self._delay_s = connect_delay_s
        self._way_delay_s = way_delay_s
        self._port: int | None = None
        self._accepted = 0
        self._links: set[asyncio.Task[None]] = set()
        self._sockets: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on a free port."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._wait(self._listen())

    def stop(self) -> None:
        """End all connections and the thread; nothing is left behind."""
        self._wait(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        """Where clients connect; the same for the proxy's whole life."""
        if self._port is None:
            raise RuntimeError("The proxy is not started: call start() or use 'with'.")
        return self._port

    @property
    def accepted(self) -> int:
        """How many connections clients have made since the start or the last reset_count()."""
        return self._accepted

    @property
    def open(self) -> int:
        """How many connections are forwarded now, those still delayed included."""
        return self._do(lambda: len(self._links))

    def reset_count(self) -> None:
        """Count accepted connections from zero."""
        self._do(lambda: setattr(self, "_accepted", 0))

    def delay(self, connect_delay_s: float) -> None:
        """From now on a new connection reaches the server only after so many seconds."""
        self._do(lambda: setattr(self, "_delay_s", connect_delay_s))

    def drop(self, *, reset: bool = False) -> int:
        """End all connections: by FIN, or by RST with *reset*; how many there were."""
        return self._do(lambda: self._drop(reset))

    def blackhole(self) -> None:
        """Forward nothing from now on, in either direction; nobody is told."""
        self._do(lambda: self._flowing.clear())

    def forward(self) -> None:
        """End blackhole(): what was held back arrives now."""
        self._do(lambda: self._flowing.set())

    def _do(self, work: Callable[[], T]) -> T:
        async def in_loop() -> T:
            return work()

        return self._wait(in_loop())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(LIMIT_S)

    async def _listen(self) -> asyncio.Server:
        self._flowing = asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._accept, self.host, 0, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        return server

    async def _shut(self) -> None:
        self._server.close()
        links = list(self._links)
        self._drop(reset=False)
        await asyncio.gather(*links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._accepted += 1
        self._links.add(task)
        try:
            await self._link(reader, writer)
        # Cancelled by drop(): the end of this connection, not an error of the proxy's.
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            self._close(writer)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sockets.add(writer)
        await asyncio.sleep(self._delay_s)
        await self._flowing.wait()
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        self._sockets.add(up_writer)
        try:
            pumps = [
                asyncio.ensure_future(self._pump(reader, up_writer, self._way_delay_s)),
                asyncio.ensure_future(self._pump(up_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._close(up_writer)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float = 0.0
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                if delay_s:
                    await asyncio.sleep(delay_s)
                await self._flowing.wait()
                sink.write(chunk)
                await sink.drain()

    def _drop(self, reset: bool) -> int:
        for writer in self._sockets:
            if reset:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()
        dropped = len(self._links)
        for link in self._links:
            link.cancel()
        return dropped

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._sockets.discard(writer)
        writer.close()
