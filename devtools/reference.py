"""Writes docs/reference.md from the code: `python -m devtools.reference`."""

from collections.abc import Iterator
from pathlib import Path

from django_psycopg_pooled import errors
from django_psycopg_pooled.checks import CHECKS
from django_psycopg_pooled.options import NOT_HERE, table
from django_psycopg_pooled.pool.counters import Counters

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
            *_statistics(),
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


if __name__ == "__main__":
    PAGE.write_text(page())
