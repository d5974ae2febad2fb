"""Writes docs/reference.md from the code: `python -m devtools.reference`."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from django_psycopg_pooled import errors
from django_psycopg_pooled.checks import CHECKS
from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.management.commands.pools import EXIT_CODES, SUBCOMMANDS
from django_psycopg_pooled.options import NOT_HERE, table
from django_psycopg_pooled.pool.counters import Counters
from django_psycopg_pooled.statements.figures import RANKS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"

SIZES = {
    "pool_min": "the option `min_size` now",
    "pool_max": "the option `max_size` now",
    "pool_size": "connections that take a slot now: idle, lent, being opened, checked or closed",
    "pool_available": "idle connections now",
    "requests_waiting": "requests in the queue now",
}
SUMS = {
    "requests_num": "checkouts",
    "requests_queued": "checkouts that found no idle connection",
    "requests_wait_ms": "their time in the queue, together",
    "requests_errors": "checkouts that ended in PoolTimeout or TooManyRequests",
    "usage_ms": "time that connections were lent, together",
    "returns_bad": "connections given back broken, or that could not be brought back",
    "connections_num": "connects begun",
    "connections_ms": "time of those that succeeded, together",
    "connections_errors": "connects that failed",
    "connections_lost": "idle connections found dead, or that failed a check",
    "idle_in_transaction": "times that a transaction was idle for longer than"
    " `idle_in_transaction_threshold`; not psycopg_pool's",
    "reclaimed": "loans taken back because nobody could end them any more; not psycopg_pool's",
}

QUERIES = {
    "text": "the statement without literals: `?` for each, `...` for lists of values",
    "calls": "executions, also those that failed",
    "errors": "those that failed",
    "errors_by_sqlstate": "the same by SQLSTATE, or by exception where the server gave none",
    "rows": "rows returned or changed, as the driver says",
    "total_s": "time in the driver: the server, the network, and reading what came",
    "mean_s": "`total_s / calls`",
    "min_s": "the shortest",
    "max_s": "the longest",
    "p50_s": "half were not longer; percentiles are right to 4.4 %",
    "p95_s": "95 % were not longer",
    "p99_s": "99 % were not longer",
    "waited_s": "time for a connection, where this was the first statement of a loan",
    "plain_calls": "executions that were not prepared",
    "plain_mean_s": "their mean",
    "prepared_calls": "executions that were",
    "prepared_mean_s": "their mean",
    "callers": "your lines of code that executed it, at most 8: `text`, `calls`, `share`",
    "works": "the requests (by route), tasks and commands that did, at most 8; likewise",
    "n_plus_one": "how many of these, or else loans, executed it more often than"
    " `n_plus_one_threshold` with different parameters",
    "n_plus_one_most": "how often one of them did",
    "first_seen": "seconds since 1970",
    "last_seen": "seconds since 1970, when it was last counted: at most some 256 statements later",
}
BY = {
    "total_time": "total_s",
    "calls": "calls",
    "mean": "mean_s",
    "p95": "p95_s",
    "rows": "rows",
    "errors": "errors",
    "n_plus_one": "n_plus_one",
}


def page() -> str:
    """The text of the page."""
    return "\n".join(
        [
            "# Reference",
            "",
            "Made from the code by `python -m devtools.reference`; a test fails if it is not.",
            "",
            *_options(),
            *_errors(),
            *_checks(),
            *_command(),
            *_statistics(),
            *_queries(),
        ]
    )


def _options() -> Iterator[str]:
    yield "## Pool options"
    yield ""
    yield 'In `DATABASES[alias]["OPTIONS"]["pool"]`: `True` or nothing for the defaults, `False`'
    yield "for the stock backend without a pool, or a dict of these. Those that psycopg_pool has"
    yield "keep its names and meanings. All but the ones marked *fixed* can be changed while the"
    yield 'pool runs, by `pools["default"].configure(max_size=20)`.'
    yield ""
    yield "| option | default | unit | from | to | what it does |"
    yield "|---|---|---|---|---|---|"
    for name, default, spec in table():
        low = "" if spec.low is None else f"{spec.low:g}"
        high = "" if spec.high is None else f"{spec.high:g}"
        fixed = "" if spec.live else " *Fixed.*"
        choices = f" One of {', '.join(map(repr, spec.choices))}." if spec.choices else ""
        yield (
            f"| `{name}` | `{default!r}` | {spec.unit} | {low} | {high} |"
            f" {spec.help}{choices}{fixed} |"
        )
    yield ""
    yield "What psycopg_pool's constructor takes and this pool refuses:"
    yield ""
    for name, reason in NOT_HERE.items():
        yield f"- `{name}`: {reason}."
    yield ""


def _errors() -> Iterator[str]:
    yield "## Errors"
    yield ""
    yield "`PoolTimeout`, `TooManyRequests` and `PoolClosed` are subclasses of the driver's"
    yield "`OperationalError`. Django raises them as `django.db.OperationalError`; the original is"
    yield "its `__cause__`."
    yield ""
    yield "| code | class | when |"
    yield "|---|---|---|"
    for kind in (
        errors.PoolError,
        errors.PoolTimeout,
        errors.TooManyRequests,
        errors.PoolClosed,
        errors.OptionsError,
        errors.NotBorrowed,
    ):
        yield f"| {kind.code} | `{kind.__name__}` | {(kind.__doc__ or '').splitlines()[0]} |"
    yield ""


def _checks() -> Iterator[str]:
    yield "## System checks"
    yield ""
    yield 'Run by `manage.py check` with `"django_psycopg_pooled"` in `INSTALLED_APPS`.'
    yield ""
    yield "| id | what it says |"
    yield "|---|---|"
    for name, text in CHECKS.items():
        yield f"| `{name}` | {text} |"
    yield ""


def _command() -> Iterator[str]:
    yield "## manage.py pools"
    yield ""
    yield 'For processes with `"django_psycopg_pooled"` in `INSTALLED_APPS`, from their first'
    yield "connection on. `--json`, `--alias` and `--pid` go with each; `--help` has the rest."
    yield ""
    yield "| subcommand | what it does |"
    yield "|---|---|"
    for name, text in SUBCOMMANDS.items():
        yield f"| `{name}` | {text} |"
    yield ""
    yield "| exit code | when |"
    yield "|---|---|"
    for code, text in EXIT_CODES.items():
        yield f"| {code} | {text} |"
    yield ""
    yield '`DJANGO_PSYCOPG_POOLED = {"CONTROL_DIR": "/run/shop"}` in the settings says where'
    yield "processes have their sockets, `None` that they have none. Without it:"
    yield "`django-psycopg-pooled-UID` in `$XDG_RUNTIME_DIR`, else in the system's folder for"
    yield "temporary files. The directory is made with mode 700, the sockets with 600; one that"
    yield "belongs to another user, or that others can write, is not used."
    yield ""


def _statistics() -> Iterator[str]:
    yield "## Statistics"
    yield ""
    yield "Keys of `pool.get_stats()`, which are psycopg_pool's. The sums count from the pool's"
    yield "start, or from the last `pop_stats()`."
    yield ""
    yield "| key | what it counts |"
    yield "|---|---|"
    for name in Counters().as_stats():
        yield f"| `{name}` | {SUMS[name]} |"
    for name, text in SIZES.items():
        yield f"| `{name}` | {text} |"
    yield ""


def _queries() -> Iterator[str]:
    yield "## Statements"
    yield ""
    yield "Fields of what `pool.queries.top()` returns, one for all statements that differ only in"
    yield "literals, lengths of lists and made-up names. At most 2,000 are told apart; the least"
    yield "used ones become one, `other`. Durations are in seconds."
    yield ""
    yield "| field | what it is |"
    yield "|---|---|"
    for field in fields(QueryFacts):
        yield f"| `{field.name}` | {QUERIES[field.name]} |"
    yield ""
    yield "`by` is one of " + ", ".join(f"`{word}` (`{BY[word]}`)" for word in RANKS) + "."
    yield ""
    yield "Slow statements, traces and reports go to the logger `django_psycopg_pooled.queries`:"
    yield "slow ones at WARNING, each at most once in 10 seconds; the others at INFO."
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
