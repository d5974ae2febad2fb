"""Where the sockets of this machine's processes are, and whether they can be trusted there."""

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

NAME = "django-psycopg-pooled"
SUFFIX = ".sock"
UNHEARD = ".temp"  # while nobody listens yet; no longer than the other, as a path has little room
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Unusable(Exception):
    """A directory that must not hold sockets; its text says why."""


def usual_directories(environ: Mapping[str, str], temporary: str) -> tuple[Path, ...]:
    """Where to look and listen without a setting, the best place first.

    More than one: a service has no XDG_RUNTIME_DIR, while the shell of its operator has one.

    temporary   the system's folder for temporary files
    """
    name = f"{NAME}-{os.getuid()}"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    parents = [runtime] if os.path.isabs(runtime) else []
    return tuple(dict.fromkeys(Path(parent) / name for parent in (*parents, temporary, "/tmp")))


def prepare(directories: tuple[Path, ...]) -> Path:
    """The first of *directories* that can be used, made if it is missing.

    Raises Unusable with the reasons of all.
    """
    reasons = []
    for directory in directories:
        try:
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o700)
            judge(directory)
            return directory
        except Unusable as error:
            reasons.append(str(error))
        except OSError as error:
            reasons.append(f"{directory}: {error.strerror or error}")
    raise Unusable("; ".join(reasons))


def judge(directory: Path) -> None:
    """Raise Unusable if anybody but this user can put a socket there; FileNotFoundError if absent.

    A link is refused, too: in a folder for temporary files anybody could have made it.
    """
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise Unusable(f"{directory} is not a directory")
    if facts.st_uid != os.getuid():
        raise Unusable(f"{directory} belongs to user {facts.st_uid}, not to {os.getuid()}")
    if facts.st_mode & OTHERS_WRITE:
        mode = stat.S_IMODE(facts.st_mode)
        raise Unusable(f"{directory} can be written by others (mode {mode:o}; 700 is right)")


def new_path(directory: Path) -> Path:
    """A name for this process's socket that no other process had or will have."""
    return directory / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"


def sockets(directory: Path) -> list[tuple[int, Path]]:
    """The process ids and sockets found there, by process id. Raises OSError."""
    return _found(directory, SUFFIX)


def _found(directory: Path, *suffixes: str) -> list[tuple[int, Path]]:
    found = []
    for path in directory.iterdir():
        pid = path.name.partition("-")[0]
        if path.suffix in suffixes and pid.isdecimal():
            found.append((int(pid), path))
    return sorted(found)


def sweep(directory: Path) -> None:
    """Remove the sockets that processes left behind which were killed. Raises nothing."""
    with contextlib.suppress(OSError):
        for pid, path in _found(directory, SUFFIX, UNHEARD):
            if pid == os.getpid() or not lives(pid):
                remove_if_dead(path)


def lives(pid: int) -> bool:
    """Whether there is such a process, as far as can be seen from this container."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


def remove_if_dead(path: Path) -> None:
    """Remove a socket whose process is gone, if nobody listens; it may be another container's."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return  # gone already, or its queue is full
