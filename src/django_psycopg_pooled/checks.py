"""System checks: what is wrong in OPTIONS["pool"], and what pooling makes of other settings."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Info, Warning
from django.db import connections

from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.integration.identity import is_pooled
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.options import PoolOptions

THREADS = re.compile(r"(?:^| )--threads[ =](\d+)(?= |$)")

# Each id with what it says, for the reference page.
CHECKS = {
    "django_psycopg_pooled.E001": "OPTIONS['pool'] holds something that cannot be used.",
    "django_psycopg_pooled.W001": "CONN_MAX_AGE keeps pooled connections from other threads.",
    "django_psycopg_pooled.W002": "The web server has more threads than the pool has connections.",
    "django_psycopg_pooled.I001": "CONN_HEALTH_CHECKS changes nothing: the pool always looks.",
}


def check_databases(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check every alias whose ENGINE is one of ours. Connects to nothing."""
    messages: list[CheckMessage] = []
    for alias in connections:
        wrapper = connections[alias]
        if isinstance(wrapper, PooledWrapper) and is_pooled(alias, wrapper.settings_dict):
            messages += _check(alias, wrapper.settings_dict)
    return messages


def _check_size(where: str, options: PoolOptions) -> Iterator[CheckMessage]:
    threads = server_threads(sys.argv, os.environ)
    if threads > options.max_size:
        yield Warning(
            f"{where}['OPTIONS']['pool']: max_size is {options.max_size}, and gunicorn runs"
            f" {threads} threads in each process: {threads - options.max_size} of them may have to"
            " wait.",
            hint=f"Raise max_size to {threads}, if the server has room for as many connections of"
            " each process; or lower gunicorn's --threads. It is well if requests seldom query.",
            id="django_psycopg_pooled.W002",
        )


def server_threads(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """gunicorn's --threads, from its command line or GUNICORN_CMD_ARGS; 0 if neither has it."""
    arguments = shlex.split(environ.get("GUNICORN_CMD_ARGS", ""))
    if argv and Path(argv[0]).name == "gunicorn":
        arguments += argv[1:]
    found = THREADS.findall(" ".join(arguments))
    return int(found[-1]) if found else 0


def _check(alias: str, settings: dict[str, Any]) -> Iterator[CheckMessage]:
    where = f"DATABASES[{alias!r}]"
    try:
        yield from _check_size(where, PoolOptions.parse(settings["OPTIONS"].get("pool")))
    except OptionsError as error:
        for problem in error.problems:
            yield Error(f"{where}['OPTIONS']['pool']: {problem}", id="django_psycopg_pooled.E001")
    age = settings["CONN_MAX_AGE"]
    if age != 0:
        kept = "until it ends" if age is None else f"for {age} s"
        yield Warning(
            f"{where}['CONN_MAX_AGE'] is {age!r}: each thread keeps its pooled connection {kept},"
            " and no other thread can borrow it meanwhile.",
            hint="Set it to 0, so that connections go back to the pool at the end of each request;"
            " the pool keeps them open. Their age is limited by the pool's option max_lifetime.",
            id="django_psycopg_pooled.W001",
        )
    elif settings["CONN_HEALTH_CHECKS"]:  # beside CONN_MAX_AGE it checks what a thread has kept
        yield Info(
            f"{where}['CONN_HEALTH_CHECKS'] changes nothing: the pool looks at each connection"
            " before it lends it, without a round trip, and asks the server if it was idle for"
            " long.",
            hint="Remove it; or set the pool's option check to True for a round trip each time.",
            id="django_psycopg_pooled.I001",
        )
