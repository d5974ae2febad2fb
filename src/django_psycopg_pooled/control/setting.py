"""The setting DJANGO_PSYCOPG_POOLED: one dict for the whole project."""

import difflib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from django_psycopg_pooled.control.places import usual_directories

CONTROL_DIR = "CONTROL_DIR"
NAMES = (CONTROL_DIR,)

# A socket's path may have so many bytes, the system says; the C library's last one is a zero.
LONGEST_PATH = 107 if sys.platform == "linux" else 103
LONGEST_NAME = "4194304-01234567.sock"  # as places.new_path() has it, of the highest process id


def problems(value: object) -> list[str]:
    """What is wrong with the setting's *value*, a sentence each."""
    if not isinstance(value, Mapping):
        return [f"it is {value!r}; it must be a dict."]
    unknown = [_unknown(name) for name in value if name not in NAMES]
    return [*unknown, *(_of_directory(value) or _of_length(value))]


def directories(value: object) -> tuple[Path, ...]:
    """Where sockets may be, the best place first; none if they are turned off, or value is wrong.

    Without CONTROL_DIR they are on, in the user's own directory. One that is too long is tried, for
    it may do where process ids are short.
    """
    if not isinstance(value, Mapping) or _of_directory(value):
        return ()
    if CONTROL_DIR not in value:
        return usual_directories(os.environ, tempfile.gettempdir())
    directory = value[CONTROL_DIR]
    return () if directory is None else (Path(directory),)


def _unknown(name: object) -> str:
    near = difflib.get_close_matches(str(name), NAMES, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, NAMES))}."
    return f"{name!r} is not known; {hint}"


def _of_directory(value: Mapping[object, object]) -> list[str]:
    directory = value.get(CONTROL_DIR)
    if directory is None or (isinstance(directory, str | Path) and Path(directory).is_absolute()):
        return []
    return [f"{CONTROL_DIR} is {directory!r}; it must be an absolute path, or None for no socket."]


def _of_length(value: Mapping[object, object]) -> list[str]:
    directory = value.get(CONTROL_DIR)
    if not isinstance(directory, str | Path):
        return []
    surplus = len(os.fsencode(Path(directory) / LONGEST_NAME)) - LONGEST_PATH
    if surplus <= 0:
        return []
    too_much = "1 byte" if surplus == 1 else f"{surplus} bytes"
    return [
        f"{CONTROL_DIR} is {str(directory)!r}, which is too long for the path of a Unix socket in"
        f" it; it must be shorter by {too_much}."
    ]
