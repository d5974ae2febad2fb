"""What the processes of a project said, as facts for tables and JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django_psycopg_pooled.control.client import Replies, ask_all
from django_psycopg_pooled.control.protocol import Request
from django_psycopg_pooled.integration.registry import pools
from django_psycopg_pooled.management.process import SETTING, project, setting_directories
from django_psycopg_pooled.management.text import sentence

Facts = Mapping[str, Any]


class Unreachable(Exception):
    """Nothing answered as it was asked to; the text says why, or what was looked for, and where."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom to ask: the pools of one name, of one process; None for all."""

    pool: str | None
    pid: int | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The processes that answered, and the errors of those that did not, by process id."""

    processes: tuple[Facts, ...]
    errors: Mapping[int, str]

    def failures(self) -> list[str]:
        """Those errors, a sentence each."""
        return [sentence(f"{pid}: {error}") for pid, error in self.errors.items()]

    def pools(self) -> Iterator[tuple[Facts, Facts]]:
        """Each pool with its process."""
        for one in self.processes:
            for pool in one["pools"]:
                yield one["process"], pool

    def as_json(self) -> dict[str, Any]:
        return {
            "processes": list(self.processes),
            "errors": [{"pid": pid, "error": error} for pid, error in self.errors.items()],
        }


def ask(what: str, choice: Choice, **args: object) -> Fleet:
    """Ask the processes of this project. Raises Unreachable if none does what it is asked.

    Blocks for some seconds where a process hangs.
    """
    directories = setting_directories()
    if not directories:
        raise Unreachable(
            f"Processes have no socket: CONTROL_DIR is None, or wrong, in settings.{SETTING}."
        )
    request = Request(what, {"pool": choice.pool, **args}, project())
    replies = ask_all(directories, request, pid=choice.pid)
    if not replies.replies:
        raise Unreachable(_nothing(replies, choice))
    answers = [reply.answer for reply in replies.replies if reply.error is None]
    errors = {reply.pid: reply.error for reply in replies.replies if reply.error is not None}
    if not answers:
        raise Unreachable("\n".join(Fleet((), errors).failures()))
    if not any(answer["pools"] for answer in answers):
        raise Unreachable(
            f"No process has an open pool{_named(choice)}. Processes that answered:"
            f" {', '.join(str(answer['process']['pid']) for answer in answers)}."
        )
    return Fleet(tuple(answer for answer in answers if answer["pools"]), errors)


def _named(choice: Choice) -> str:
    return f" named {choice.pool!r}" if choice.pool else ""


def _nothing(replies: Replies, choice: Choice) -> str:
    if not pools:
        return (
            "No alias in DATABASES has a pool: ENGINE must be one of"
            " django_psycopg_pooled.backends, and OPTIONS['pool'] not be False. What is wrong"
            " otherwise, manage.py check tells."
        )
    wanted = "a process" if choice.pid is None else f"process {choice.pid}"
    lines = [
        f"No answer from {wanted} of this project that has a pool with connections. Looked in:",
        *(f"  {place}" for place in replies.looked),
    ]
    if replies.others:
        lines.append(
            f"Processes of other projects: {replies.others}. Another project is one with another"
            " DJANGO_SETTINGS_MODULE or other DATABASES."
        )
    lines.append(
        "A process has a socket once it has opened a connection; be the same user as it, in the"
        f" same container, and with the same settings.{SETTING}."
    )
    return "\n".join(lines)
