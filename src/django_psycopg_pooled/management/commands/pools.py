"""manage.py pools: the pools of this project's running processes."""

import json
import os
import shutil
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.management import incidents, sessions, statements, top
from django_psycopg_pooled.management.fleet import Choice, Fleet, Unreachable, ask
from django_psycopg_pooled.management.process import pool_name
from django_psycopg_pooled.management.result import Refusal, Result
from django_psycopg_pooled.management.status import WRONG, status_lines, status_result
from django_psycopg_pooled.management.text import Width, cut, printable
from django_psycopg_pooled.statements.figures import RANKS

Options = dict[str, Any]

N = TypeVar("N", int, float)

LONGEST_S = 86_400
MOST = 100_000
LAST_PID = 2**31 - 1

FINE, SOMETHING_WRONG, REFUSED = 0, 1, 2

EXIT_CODES = {
    FINE: "Fine.",
    SOMETHING_WRONG: "Done, but something is wrong; see each subcommand.",
    REFUSED: "Wrong usage, or nothing that was asked for could be reached.",
}
SUBCOMMANDS = {
    "status": "The pools of all processes; without a subcommand, too. Exit code 1: requests wait,"
    " a pool is paused, its last connect failed, or a process does not answer.",
    "top": "Pools and loans, drawn anew until q or Ctrl-C; by rich if that is installed.",
    "idle": "The server's sessions that are idle in a transaction, with our lines of Python."
    " Exit code 1: there are some.",
    "blocking": "Who waits for whose locks, as a tree. Exit code 1: a session waits for longer than"
    " --older-than, or sessions wait for each other.",
    "queries": "The statements that cost most, of all processes together. Exit code 1: a process"
    " does not answer.",
    "prepared": "What is prepared, denied and demoted, and why. Exit code 1: a process does not"
    " answer.",
    "incidents": "What was seen when something went wrong: at a PoolTimeout, and when a transaction"
    " idled while others waited for it. With --json all of it. Exit code 1: a process does not"
    " answer.",
    "resize": "Change min_size and max_size until the processes end; settings stay as they are."
    " Exit code as for status.",
    "drain": "Replace every connection: idle ones now, lent ones when they come back. Exit code"
    " as for status.",
    "pause": "Lend nothing; requests wait, within their timeouts. With --wait: until all that is"
    " lent has come back. Exit code 1: it has not within that time, or a process does not answer.",
    "resume": "Lend again after pause. Exit code as for status.",
    "terminate": "End a session of the server, after asking; not if it has done anything since it"
    " was shown. Exit code 1: it was not ended.",
}


class Command(BaseCommand):
    """Asks processes through their sockets; idle, blocking and terminate ask the server, too."""

    help = "Look at the pools of this project's running processes, and control them."
    requires_system_checks = ()  # it must work when something is wrong

    def add_arguments(self, parser: CommandParser) -> None:
        parser.epilog = "Exit codes: " + " ".join(f"{n}: {t}" for n, t in EXIT_CODES.items())
        _add_common(parser)
        common = CommandParser(add_help=False, argument_default=SUPPRESS)
        _add_common(common)
        _add_djangos(common)
        subs = parser.add_subparsers(dest="what", metavar="SUBCOMMAND")
        each = {
            name: subs.add_parser(name, help=text, description=text, parents=[common])
            for name, text in SUBCOMMANDS.items()
        }
        _add_to_top(each["top"])
        each["idle"].add_argument(
            "--older-than", type=_seconds, default=3.0, metavar="SECONDS", help="default: 3"
        )
        each["blocking"].add_argument(
            "--older-than", type=_seconds, default=1.0, metavar="SECONDS", help="default: 1"
        )
        each["queries"].add_argument(
            "--by", choices=list(RANKS), default="total_time", help="default: total_time"
        )
        each["queries"].add_argument("-n", type=_count, default=10, help="how many; default: 10")
        each["resize"].add_argument("--min-size", type=int, metavar="N")
        each["resize"].add_argument("--max-size", type=int, metavar="N")
        each["pause"].add_argument("--wait", type=_seconds, default=0.0, metavar="SECONDS")
        each["terminate"].add_argument("server_pid", type=_pid, help="a server process's id")
        each["terminate"].add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        act = getattr(self, f"_{options['what'] or 'status'}")
        try:
            result = act(_choice(options), options)
        except (Unreachable, Refusal) as error:
            raise CommandError(str(error), returncode=REFUSED) from None
        self._print(result, options)
        if result.wrong:
            sys.exit(SOMETHING_WRONG)

    def _status(self, choice: Choice, options: Options) -> Result:
        return status_result(ask("status", choice), self._width())

    def _idle(self, choice: Choice, options: Options) -> Result:
        return sessions.idle(choice, options["alias"], options["older_than"], self._width())

    def _blocking(self, choice: Choice, options: Options) -> Result:
        return sessions.blocking(choice, options["alias"], options["older_than"], self._width())

    def _queries(self, choice: Choice, options: Options) -> Result:
        return statements.queries(choice, options["n"], options["by"], self._width())

    def _prepared(self, choice: Choice, options: Options) -> Result:
        return statements.prepared(choice, self._width())

    def _incidents(self, choice: Choice, options: Options) -> Result:
        return incidents.incidents(choice, self._width())

    def _resize(self, choice: Choice, options: Options) -> Result:
        sizes = {n: options[n] for n in ("min_size", "max_size") if options[n] is not None}
        if not sizes:
            raise Refusal("Give --min-size, --max-size or both.")
        return status_result(ask("configure", choice, options=sizes), self._width())

    def _drain(self, choice: Choice, options: Options) -> Result:
        return status_result(ask("drain", choice), self._width())

    def _pause(self, choice: Choice, options: Options) -> Result:
        deadline = SYSTEM_CLOCK.monotonic() + options["wait"]
        fleet = ask("pause", choice)
        while (lent := _lent(fleet)) and SYSTEM_CLOCK.monotonic() < deadline:
            SYSTEM_CLOCK.sleep(0.1)
            fleet = ask("status", choice)
        wrong = bool(fleet.errors) or bool(lent and options["wait"])
        return Result(status_lines(fleet, self._width()), fleet.as_json(), wrong)

    def _resume(self, choice: Choice, options: Options) -> Result:
        return status_result(ask("resume", choice), self._width())

    def _terminate(self, choice: Choice, options: Options) -> Result:
        return sessions.terminate(
            choice, options["alias"], options["server_pid"], self._width(),
            lambda lines: bool(options["yes"]) or self._agrees(lines, options),
        )  # fmt: skip

    def _agrees(self, lines: Sequence[str], options: Options) -> bool:
        if options["json"] or not sys.stdin.isatty():
            raise Refusal("Nobody can be asked here: give --yes.")
        self.stdout.write("\n".join(lines))
        try:
            return input("End this session? [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            self.stdout.write("")
            return False

    def _top(self, choice: Choice, options: Options) -> Result:
        on_terminal = self.stdout.isatty()
        times = options["times"]
        if times is None:
            times = 0 if on_terminal else 1
        view = top.View(lambda: ask("status", choice), options["json"], endless=not times)
        view.frame()  # raises while the terminal is as it was
        with top.screen(self._write, self._is_coloured(), on_terminal and not view.json) as draw:
            top.watch(view.frame, options["interval"], times, draw)
        return Result((), None)

    def _print(self, result: Result, options: Options) -> None:
        if result.facts is None:
            return
        if options["json"]:
            self.stdout.write(json.dumps(result.facts))
            return
        paint: Callable[[str], str] = self.style.ERROR if self._is_coloured() else str
        width = self._width()
        for line in result.lines:
            shown = cut(printable(line), width)
            self.stdout.write(paint(shown) if shown.startswith(WRONG) else shown)

    def _is_coloured(self) -> bool:
        return self.stdout.isatty() and not os.environ.get("NO_COLOR")

    def _width(self) -> Width:
        return shutil.get_terminal_size().columns if self.stdout.isatty() else None

    def _write(self, text: str) -> None:
        self.stdout.write(text, ending="")
        self.stdout.flush()


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON in place of tables")
    parser.add_argument("--alias", help="pools of this database only")
    parser.add_argument("--pid", type=_pid, help="this process only")


def _add_djangos(parser: ArgumentParser) -> None:
    """Django's own options, which may stand behind the subcommand, too."""
    for flag in ("--settings", "--pythonpath", "--verbosity"):
        parser.add_argument(flag, help=SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color"):
        parser.add_argument(flag, action="store_true", help=SUPPRESS)


def _add_to_top(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--interval", type=_interval, default=2.0, metavar="SECONDS", help="default: 2"
    )
    parser.add_argument(
        "--times", type=_count, metavar="N",
        help="how often; by default until q on a terminal, and once elsewhere",
    )  # fmt: skip


def _choice(options: Options) -> Choice:
    alias = options["alias"]
    return Choice(pool_name(alias) if alias else None, options["pid"])


def _seconds(text: str) -> float:
    return _number(text, float, 0, LONGEST_S, "a number of seconds")


def _interval(text: str) -> float:
    return max(_seconds(text), 0.1)


def _count(text: str) -> int:
    return _number(text, int, 1, MOST, "a whole number")


def _pid(text: str) -> int:
    return _number(text, int, 1, LAST_PID, "a process id,")


def _number(text: str, kind: type[N], low: int, high: int, what: str) -> N:
    """*text* as a number from *low* to *high*; else what argparse is to say."""
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not low <= number <= high:  # so is NaN
        raise ArgumentTypeError(f"it is {text!r}; it must be {what} from {low} to {high}.")
    return number


def _lent(fleet: Fleet) -> int:
    return sum(c["state"] == "lent" for _, pool in fleet.pools() for c in pool["connections"])
