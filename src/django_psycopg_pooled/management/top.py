"""A view of all pools that is drawn anew until somebody ends it."""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

from django_psycopg_pooled.management.fleet import Fleet, Unreachable
from django_psycopg_pooled.management.status import WRONG, status_lines
from django_psycopg_pooled.management.text import cut, printable
from django_psycopg_pooled.tables.pool import duration

HINT = "Longest loans first. q ends."
HOME_AND_CLEAR = "\x1b[H\x1b[2J"

Draw = Callable[[Sequence[str]], None]


def top_lines(fleet: Fleet, width: int, height: int) -> list[str]:
    """The status of the pools, and as many loans as fit, the longest first, two lines each.

    41.2 s  4711 default  server 812  idle in transaction  POST /checkout
            shop/payment.py:41 in charge
    """
    lines = [*status_lines(fleet, width), "", cut(HINT, width)]
    loans = [
        (process, pool, connection)
        for process, pool in fleet.pools()
        for connection in pool["connections"]
        if connection["state"] == "lent"
    ]
    for process, pool, loan in sorted(loans, key=lambda found: -found[2]["in_state_s"]):
        first = "  ".join(
            str(part)
            for part in (
                f"{duration(loan['in_state_s']):>8}",
                f"{process['pid']} {pool['name']}",
                f"server {loan['server_pid']}",
                loan["activity"] or "",
                loan["label"] or loan["thread"] or "",
            )
            if part
        )
        place = loan["now_at"] or loan["last_statement_at"] or loan["borrowed_at"]
        lines.append(cut(printable(first), width))
        lines.append(cut(" " * 10 + cut(printable(place), width - 10, keep_end=True), width))
    return [line.rstrip() for line in lines[:height]]


class View:
    """What each frame shows; lives as long as the view.

    look      asks the processes; raises Unreachable
    endless   somebody watches: no process is no reason to end, after a deploy there will be some
    """

    def __init__(self, look: Callable[[], Fleet], json: bool, *, endless: bool) -> None:
        self._look = look
        self._endless = endless
        self._drawn = False
        self.json = json

    def frame(self) -> list[str]:
        """The lines that fit the terminal as it is now, or one of JSON. Raises Unreachable."""
        try:
            fleet = self._look()
        except Unreachable as error:
            if self._endless and self._drawn and not self.json:
                columns = shutil.get_terminal_size().columns
                return [cut(printable(line), columns) for line in str(error).splitlines()]
            raise
        self._drawn = True
        if self.json:
            return [json.dumps(fleet.as_json())]
        size = shutil.get_terminal_size()
        return top_lines(fleet, size.columns, size.lines - 1)


def watch(frame: Callable[[], Sequence[str]], interval: float, times: int, draw: Draw) -> None:
    """Draw a frame every *interval* seconds, *times* times (0: until q or Ctrl-C)."""
    with _keys() as key, _ends_by_sigterm(), contextlib.suppress(KeyboardInterrupt):
        drawn = 0
        while True:
            draw(frame())
            drawn += 1
            if drawn == times or key(interval) in ("q", "Q"):
                return


@contextmanager
def screen(write: Callable[[str], Any], coloured: bool, on_terminal: bool) -> Iterator[Draw]:
    """How to draw: on a terminal by rich if it is installed, else as plain text.

    Whatever is changed of the terminal is undone at the end.
    """
    try:
        console, live, text = map(import_module, ("rich.console", "rich.live", "rich.text"))
    except ImportError:
        console = None
    if console is None or not on_terminal:
        smart = on_terminal and os.environ.get("TERM", "dumb") != "dumb"
        clear = HOME_AND_CLEAR if smart else ""
        yield lambda lines: write(clear + "\n".join(lines) + "\n")
        return

    def draw(lines: Sequence[str]) -> None:
        whole = text.Text(no_wrap=True, overflow="crop")
        for number, line in enumerate(lines):
            style = "bold red" if line.startswith(WRONG) else "" if number else "bold"
            whole.append(line + "\n", style)
        view.update(whole, refresh=True)

    terminal = console.Console(no_color=not coloured, highlight=False)
    with live.Live(console=terminal, screen=True, auto_refresh=False) as view:
        yield draw


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key; '' if none was pressed."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)

    def key(seconds: float) -> str:
        ready, _, _ = select.select([stdin], [], [], seconds)
        return os.read(stdin, 1).decode("latin-1") or "q" if ready else ""

    try:
        tty.setcbreak(stdin)
        yield key
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    select.select([], [], [], seconds)
    return ""


@contextmanager
def _ends_by_sigterm() -> Iterator[None]:
    """Leave in an orderly way when told to end, so that the terminal is as before."""

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
