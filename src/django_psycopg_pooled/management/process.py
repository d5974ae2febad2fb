"""This process, as manage.py pools finds it."""

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.db import connections

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.control.answers import Answers
from django_psycopg_pooled.control.asks import PoolAsks
from django_psycopg_pooled.control.listener import LISTENER
from django_psycopg_pooled.control.protocol import Refused
from django_psycopg_pooled.control.setting import directories
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.identity import target_of
from django_psycopg_pooled.integration.registry import REGISTRY
from django_psycopg_pooled.statements.figures import RANKS
from django_psycopg_pooled.version import __version__

# What follows a program's name, if it is no option and cannot hold a password.
WORD = re.compile(r"[\w.:][\w.:-]*")
MOST = 1_000  # statements in one answer
SETTING = "DJANGO_PSYCOPG_POOLED"


class Life:
    """When this process began; lives as long as it."""

    def __init__(self) -> None:
        self.began = SYSTEM_CLOCK.monotonic()

    def begin(self) -> None:
        """In a child of fork()."""
        self.began = SYSTEM_CLOCK.monotonic()


LIFE = Life()
os.register_at_fork(after_in_child=LIFE.begin)


def answer_questions() -> None:
    """Have this process answer once it has a connection, if the settings do not forbid it.

    To be called when the apps are ready; opens nothing.
    """
    LISTENER.set_up(setting_directories(), Answers(project(), _asks().table()).answer)


def setting_directories() -> tuple[Path, ...]:
    """Where the sockets of this project's processes may be; none if they are turned off."""
    return directories(getattr(settings, SETTING, {}))


@cache  # so that databases which are added later do not part a process from its project
def project() -> str:
    """What tells this project from others of the same user: its settings module and databases.

    Not its folder: each release may have one of its own.
    """
    module = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    targets = sorted(
        [alias, *map(str, target_of(connections.settings[alias]))]
        for alias in connections.settings
        if connections.settings[alias].get("ENGINE")
    )
    return hashlib.sha256(json.dumps([module, targets]).encode()).hexdigest()[:16]


def _asks() -> PoolAsks[DatabasePool]:
    return PoolAsks(REGISTRY.all, facts, LOOKS)


def _queries(pool: DatabasePool, args: Mapping[str, Any]) -> dict[str, Any]:
    count, by = args.get("n"), args.get("by")
    if type(count) is not int or by not in RANKS:
        raise Refused("args", f"n must be a number, and by one of {', '.join(RANKS)}")
    # With how long each execution took, so that percentiles can be told of several processes.
    top = pool.queries.top_with_durations(min(count, MOST), by)
    return {"statements": [{**asdict(one), "durations": took.as_json()} for one, took in top]}


def _prepared(pool: DatabasePool, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"prepared": list(map(asdict, pool.prepared()[:MOST]))}


def _incidents(pool: DatabasePool, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"incidents": list(map(asdict, pool.incidents()))}


def _forget_plans(pool: DatabasePool, args: Mapping[str, Any]) -> dict[str, Any]:
    pool.forget_plans()
    return {}


FORGET_PLANS = "forget_plans"
# A new ask is one line here.
LOOKS = {
    "queries": _queries,
    "prepared": _prepared,
    "incidents": _incidents,
    FORGET_PLANS: _forget_plans,
}


def facts() -> dict[str, Any]:
    """This process, without what may be secret."""
    return {
        "pid": os.getpid(),
        "program": program(sys.argv),
        "uptime_s": SYSTEM_CLOCK.monotonic() - LIFE.began,
        "python": platform.python_version(),
        "django": django.get_version(),
        "driver": DRIVER.name,
        "version": __version__,
    }


def program(argv: list[str]) -> str:
    """What people call it: 'manage.py runserver', 'gunicorn'. No more arguments than that."""
    path = Path(argv[0] if argv else "")
    name = path.parent.name if path.name == "__main__.py" else path.name
    return " ".join([name, *filter(WORD.fullmatch, argv[1:2])])


def pool_name(alias: str) -> str:
    """What the pool of *alias* is called: the option `name`, or the alias."""
    pool = connections.settings.get(alias, {}).get("OPTIONS", {}).get("pool")
    return (pool.get("name") if isinstance(pool, Mapping) else None) or alias
