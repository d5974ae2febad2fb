"""System checks: what is wrong in OPTIONS["pool"], and what pooling makes of other settings.

Imported also where no driver is installed, so what needs one is imported by who needs it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django import conf
from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Info, Warning
from django.db import connections

from django_psycopg_pooled.control.setting import problems
from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.integration.identity import is_pooled
from django_psycopg_pooled.integration.no_driver import INSTALL, NO_DRIVER
from django_psycopg_pooled.integration.web_server import too_few
from django_psycopg_pooled.options import PoolOptions

ENGINES = "django_psycopg_pooled.backends."

# What is bound to a session of the server.
NOT_BEHIND_A_POOLER = ("plan_cache_mode", "idle_in_transaction_timeout")

# Each id with what it says, for the reference page.
CHECKS = {
    "django_psycopg_pooled.E001": "OPTIONS['pool'] holds something that cannot be used.",
    "django_psycopg_pooled.E002": "DJANGO_PSYCOPG_POOLED holds something that cannot be used.",
    "django_psycopg_pooled.E003": "No driver is installed, and an alias has one of our ENGINEs.",
    "django_psycopg_pooled.W001": "CONN_MAX_AGE keeps pooled connections from other threads.",
    "django_psycopg_pooled.W002": "gunicorn has more threads in each process than the pool has"
    " connections. Read are `--threads` of its command line and of GUNICORN_CMD_ARGS, not its"
    " configuration file. gunicorn's own processes run no checks: there it is logged, once for each"
    " alias.",
    "django_psycopg_pooled.W003": "`prepare` prepares nothing beside server_side_binding.",
    "django_psycopg_pooled.W004": "The server ends idle transactions before the pool reports them.",
    "django_psycopg_pooled.W005": "`on_idle_in_transaction` is never called.",
    "django_psycopg_pooled.W006": "An option cannot hold behind a pooler.",
    "django_psycopg_pooled.I001": "CONN_HEALTH_CHECKS changes nothing: the pool always looks.",
    "django_psycopg_pooled.I002": 'CONN_MAX_AGE keeps nothing beside release="transaction".',
}


def check_databases(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check every alias whose ENGINE is one of ours. Connects to nothing."""
    from django_psycopg_pooled.integration.wrapper import PooledWrapper

    messages: list[CheckMessage] = []
    for alias in connections:
        wrapper = connections[alias]
        if isinstance(wrapper, PooledWrapper) and is_pooled(alias, wrapper.settings_dict):
            messages += _check(alias, wrapper.settings_dict)
    return messages


def check_driver(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Instead of the other checks where no driver is installed: who would need one."""
    return [
        Error(f"DATABASES[{alias!r}]: {NO_DRIVER}", hint=INSTALL, id="django_psycopg_pooled.E003")
        for alias, settings in connections.settings.items()
        if settings["ENGINE"].startswith(ENGINES)
    ]


def check_setting(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check DJANGO_PSYCOPG_POOLED, which is the whole project's."""
    value = getattr(conf.settings, "DJANGO_PSYCOPG_POOLED", {})
    return [
        Error(f"DJANGO_PSYCOPG_POOLED: {problem}", id="django_psycopg_pooled.E002")
        for problem in problems(value)
    ]


def _check(alias: str, settings: dict[str, Any]) -> Iterator[CheckMessage]:
    where = f"DATABASES[{alias!r}]"
    pool = f"{where}['OPTIONS']['pool']"
    try:
        options = PoolOptions.parse(settings["OPTIONS"].get("pool"))
    except OptionsError as error:
        for problem in error.problems:
            yield Error(f"{pool}: {problem}", id="django_psycopg_pooled.E001")
        options = PoolOptions()
    else:
        yield from _check_size(pool, options)
        yield from _check_prepare(pool, options, settings)
        yield from _check_idle(pool, options)
        yield from _check_pooler(pool, options)
    yield from _check_ages(where, options, settings)


def _check_size(pool: str, options: PoolOptions) -> Iterator[CheckMessage]:
    if said := too_few(options.max_size):
        what, hint = said
        yield Warning(f"{pool}: {what}", hint=hint, id="django_psycopg_pooled.W002")


def _check_prepare(
    pool: str, options: PoolOptions, settings: dict[str, Any]
) -> Iterator[CheckMessage]:
    binds_on_server = _is_psycopg3() and settings["OPTIONS"].get("server_side_binding") is True
    if options.prepare and binds_on_server:
        yield Warning(
            f"{pool}: prepare is {options.prepare!r}, and server_side_binding is True: nothing is"
            " prepared, since only statements that are bound in this process are.",
            hint="Remove server_side_binding: what the pool prepares is bound on the server, and"
            " with the types that the same statement has without it.",
            id="django_psycopg_pooled.W003",
        )


def _check_idle(pool: str, options: PoolOptions) -> Iterator[CheckMessage]:
    threshold, limit = options.idle_in_transaction_threshold, options.idle_in_transaction_timeout
    looks = threshold > 0 and options.num_workers > 0
    if looks and 0 < limit <= threshold and not options.pooler:
        yield Warning(
            f"{pool}: idle_in_transaction_timeout is {limit:g} s and idle_in_transaction_threshold"
            f" {threshold:g} s: the server ends each idle transaction before it is reported, and"
            " only its error remains.",
            hint=f"Set idle_in_transaction_threshold to less than {limit:g} s, or to 0 if the error"
            " is all you want.",
            id="django_psycopg_pooled.W004",
        )
    if options.on_idle_in_transaction is not None and not looks:
        why = "num_workers" if threshold else "idle_in_transaction_threshold"
        yield Warning(
            f"{pool}: on_idle_in_transaction is set, and {why} is 0: it is never called.",
            hint=f"Set {why} to more than 0, or leave on_idle_in_transaction out.",
            id="django_psycopg_pooled.W005",
        )


def _check_pooler(pool: str, options: PoolOptions) -> Iterator[CheckMessage]:
    given = [name for name in NOT_BEHIND_A_POOLER if getattr(options, name)]
    if options.prepare and not _is_psycopg3():  # it prepares by SQL, which no pooler follows
        given.append("prepare")
    if options.pooler and given:
        yield Warning(
            f"{pool}: pooler is {options.pooler!r}, so {' and '.join(given)} cannot hold: the next"
            " statement may meet another session.",
            hint=f"Leave out {' and '.join(given)}, or pooler if nothing stands between the pool"
            " and the server. What is a setting of the server can be given to the role there, by"
            " ALTER ROLE ... SET.",
            id="django_psycopg_pooled.W006",
        )


def _check_ages(
    where: str, options: PoolOptions, settings: dict[str, Any]
) -> Iterator[CheckMessage]:
    age = settings["CONN_MAX_AGE"]
    kept = "until it ends" if age is None else f"for {age} s"
    if age != 0 and options.release == "transaction":
        yield Info(
            f"{where}['CONN_MAX_AGE'] is {age!r} and keeps nothing: with release='transaction'"
            " each connection goes back to the pool when its transaction ends.",
            hint="Set it to 0. The pool keeps connections open; their age is limited by its option"
            " max_lifetime.",
            id="django_psycopg_pooled.I002",
        )
    elif age != 0:
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


def _is_psycopg3() -> bool:
    from django_psycopg_pooled.integration.driver import DRIVER

    return DRIVER.name == "psycopg"
