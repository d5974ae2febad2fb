"""The threads of the web server that this process is, as far as they can be read; and a hint.

Read are gunicorn's --threads on its command line and in GUNICORN_CMD_ARGS; not its configuration
file, which is code.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

THREADS = re.compile(r"(?:^| )--threads[ =](\d+)(?= |$)")

_looked_at: set[str] = set()  # aliases, in this process


def server_threads(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """gunicorn's --threads, from its command line or GUNICORN_CMD_ARGS; 0 if neither has it."""
    arguments = _split(environ.get("GUNICORN_CMD_ARGS", ""))
    if _is_gunicorn(argv):
        arguments += argv[1:]
    found = THREADS.findall(" ".join(arguments))
    return int(found[-1]) if found else 0


def too_few(max_size: int) -> tuple[str, str] | None:
    """What is to be said, and what to do, if gunicorn has more threads than that; else None."""
    threads = server_threads(sys.argv, os.environ)
    if threads <= max_size:
        return None
    return (
        f"max_size is {max_size}, and gunicorn runs {threads} threads in each process:"
        f" {threads - max_size} of them may have to wait.",
        f"Raise max_size to {threads}, if the server has room for as many connections of each"
        " process; or lower gunicorn's --threads. It is well if requests seldom query.",
    )


def hint_once(alias: str, max_size: int) -> None:
    """Log it in a server process, once for each alias: Django runs no system checks there."""
    if alias in _looked_at:
        return
    _looked_at.add(alias)
    if _is_gunicorn(sys.argv) and (said := too_few(max_size)):
        logger.warning("DATABASES[%r]['OPTIONS']['pool']: %s To do: %s", alias, *said)


def _is_gunicorn(argv: Sequence[str]) -> bool:
    """Whether it was started as `gunicorn` or by `python -m gunicorn`."""
    path = Path(argv[0] if argv else "")
    return "gunicorn" in (path.name, path.parent.name if path.name == "__main__.py" else "")


def _split(arguments: str) -> list[str]:
    if not arguments:
        return []
    import shlex  # seldom needed

    try:
        return shlex.split(arguments)
    except ValueError:
        return []  # quotes that do not end: gunicorn does not start with them either
