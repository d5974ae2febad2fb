"""Asks the processes of a project."""

import contextlib
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.control.places import Unusable, judge, lives, remove_if_dead, sockets
from django_psycopg_pooled.control.protocol import (
    LONGEST_ANSWER,
    Refused,
    Request,
    read_answer,
    write_request,
)

PATIENCE_S = 8.0  # for one process: it may be busy with another client, see Service
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Reply:
    """What one process said: an answer, or an error in words with its code, if it has one."""

    pid: int
    answer: Any = None
    error: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Replies:
    """What all said, by process id, and what was looked for where, in words."""

    replies: tuple[Reply, ...]
    others: int  # processes of other projects, which did not answer
    looked: tuple[str, ...]


def ask_all(directories: Sequence[Path], request: Request, *, pid: int | None = None) -> Replies:
    """Ask each process whose socket is in one of *directories*, but this one; or *pid* alone.

    Blocks for PATIENCE_S for each AT_ONCE processes that hang. Raises nothing. Removes the sockets
    of processes that are gone.
    """
    found: list[tuple[int, Path]] = []
    looked = []
    for directory in directories:
        there, words = _look(directory)
        found += there
        looked.append(words)
    chosen = [(p, path) for p, path in found if (p != os.getpid() if pid is None else p == pid)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = threads.map(lambda one: _ask(one[0], one[1], request), chosen)
        replies = [reply for reply in answers if reply is not None]
    own = tuple(reply for reply in replies if reply.code != "project")
    return Replies(own, len(replies) - len(own), tuple(looked))


def _look(directory: Path) -> tuple[list[tuple[int, Path]], str]:
    try:
        judge(directory)
        found = sockets(directory)
    except FileNotFoundError:
        return [], f"{directory}: not there"
    except Unusable as error:
        return [], f"{error}: not used"
    except OSError as error:
        return [], f"{directory}: {error.strerror or error}"
    return found, f"{directory}: {len(found)} socket{'s' * (len(found) != 1)}"


def _ask(pid: int, path: Path, request: Request) -> Reply | None:
    """What the process says; None if it is gone."""
    try:
        return Reply(pid, answer=read_answer(_exchange(path, write_request(request))))
    except Refused as refused:
        return Reply(pid, error=str(refused), code=refused.code)
    except (ConnectionRefusedError, FileNotFoundError):
        if not lives(pid):
            with contextlib.suppress(OSError):
                remove_if_dead(path)
        return None
    except TimeoutError:
        return Reply(pid, error=f"no answer within {PATIENCE_S:g} s")
    except OSError as error:
        return Reply(pid, error=f"no answer: {error.strerror or error}")


def _exchange(path: Path, line: bytes) -> bytes:
    """Send *line*, and return the line that comes back; within PATIENCE_S. Raises OSError."""
    deadline = SYSTEM_CLOCK.monotonic() + PATIENCE_S
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(PATIENCE_S)
        server.connect(str(path))
        server.sendall(line)
        while not answer.endswith(b"\n") and len(answer) <= LONGEST_ANSWER:
            left = deadline - SYSTEM_CLOCK.monotonic()
            if left <= 0:
                raise TimeoutError
            server.settimeout(left)
            part = server.recv(64 * 1024)
            if not part:
                break
            answer += part
    if not answer:
        raise ConnectionResetError("it closed the connection")
    return bytes(answer)
