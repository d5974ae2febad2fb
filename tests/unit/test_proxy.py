"""The proxy that tests put before a server; here before an echo of one thread."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from devtools.proxy import TcpProxy

LIMIT_S = 10.0
BRIEF_S = 0.05


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        TcpProxy("127.0.0.1", listener.getsockname()[1]) as proxy,
    ):
        thread = threading.Thread(target=echo, args=[listener])
        thread.start()
        yield proxy
        # Closing a listener does not wake its accept().
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def echo(listener: socket.socket) -> None:
    """Serve one client after the other until *listener* is shut down."""
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                while data := client.recv(1000):
                    client.sendall(data)


@contextlib.contextmanager
def connected(proxy: TcpProxy) -> Iterator[socket.socket]:
    """A client whose connection has reached the echo."""
    with socket.create_connection((proxy.host, proxy.port), LIMIT_S) as client:
        assert say(client, b"hello") == b"hello"
        yield client


def say(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(1000)


def test_it_forwards_and_counts(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        assert say(client, b"again") == b"again"
        assert (proxy.accepted, proxy.open) == (1, 1)
    proxy.reset_count()
    assert proxy.accepted == 0


def test_a_delayed_connection_reaches_the_server_late(proxy: TcpProxy) -> None:
    proxy.delay(BRIEF_S)
    began = time.monotonic()
    with connected(proxy):
        assert time.monotonic() - began >= BRIEF_S


def test_a_long_way_delays_all_that_clients_send() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        TcpProxy("127.0.0.1", listener.getsockname()[1], way_delay_s=BRIEF_S) as proxy,
    ):
        thread = threading.Thread(target=echo, args=[listener])
        thread.start()
        with connected(proxy) as client:
            began = time.monotonic()
            assert say(client, b"again") == b"again"
            assert time.monotonic() - began >= BRIEF_S
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_drop_ends_all_connections(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        assert proxy.drop() == 1
        assert client.recv(1) == b""


def test_drop_can_reset_the_connections(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        proxy.drop(reset=True)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_blackhole_swallows_until_it_forwards_again(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        proxy.blackhole()
        client.sendall(b"lost?")
        client.settimeout(BRIEF_S)
        with pytest.raises(TimeoutError):
            client.recv(1000)
        proxy.forward()
        client.settimeout(LIMIT_S)
        assert client.recv(1000) == b"lost?"


def test_stop_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with TcpProxy("127.0.0.1", 1):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
