"""The setting DJANGO_PSYCOPG_POOLED: one dict for the whole project."""

import difflib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from django_psycopg_pooled.control.places import usual_directories

CONTROL_DIR = "CONTROL_DIR"
NAMES = (CONTROL_DIR,)


def problems(value: object) -> list[str]:
    """What is wrong with the setting's *value*, a sentence each."""
    if not isinstance(value, Mapping):
        return [f"it is {value!r}; it must be a dict."]
    return [*map(_unknown, [name for name in value if name not in NAMES]), *_of_directory(value)]


def directories(value: object) -> tuple[Path, ...]:
    """Where sockets may be, the best place first; none if they are turned off, or value is wrong.

    Without CONTROL_DIR they are on, in the user's own directory.
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
