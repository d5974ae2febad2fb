"""What a subcommand has found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Refusal(Exception):
    """Wrong usage, or what was asked for is not there; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Result:
    """For people as lines, for programs as facts; `wrong` decides on the exit code."""

    lines: Sequence[str]
    facts: Any
    wrong: bool = False
