"""Descriptors of the parent's in a child of fork()."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_psycopg_pooled.drivers.sockets import lead_nowhere


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_who_uses_it_finds_its_end_and_the_other_side_hears_nothing(
    line: tuple[socket.socket, socket.socket],
) -> None:
    near, far = line
    far.setblocking(False)
    with near.dup() as parents:
        lead_nowhere(near.fileno())
        assert near.recv(10) == b""
        with pytest.raises(BrokenPipeError):
            near.send(b"from the child")
        with pytest.raises(BlockingIOError):
            far.recv(10)
        parents.send(b"from the parent")
        assert far.recv(20) == b"from the parent"
        assert not near.get_inheritable()


def test_what_is_no_connection_is_left_alone(tmp_path: Path) -> None:
    """The number of one that was closed may belong to anything by then."""
    reader, writer = os.pipe()
    with (tmp_path / "file").open("w") as file, socket.create_server(("127.0.0.1", 0)) as server:
        before = [os.fstat(fd) for fd in (reader, file.fileno(), server.fileno())]
        for fd in (reader, file.fileno(), server.fileno()):
            lead_nowhere(fd)
        assert [os.fstat(fd) for fd in (reader, file.fileno(), server.fileno())] == before
    os.close(reader)
    os.close(writer)
    lead_nowhere(reader)
    lead_nowhere(-1)
