"""The tests of Django that our backend may fail, each with the reason; everything else must pass.

Most are tied to the insides of psycopg_pool, which stock Django's pool is and ours is not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from devtools.django_suite.labels import covers


@dataclass(frozen=True)
class Expected:
    """One row: a test, why it fails with ours, and where it does."""

    test: str
    reason: str
    drivers: tuple[str, ...] = ("psycopg", "psycopg2")
    since: tuple[int, int] = (5, 2)  # the first series of Django that has the test
    release: str = ""  # fails only where the pool's option says so

    def applies(self, driver: str, series: tuple[int, int], release: str = "request") -> bool:
        """Whether the test exists there, is not skipped, and fails in this mode."""
        known = driver in self.drivers and series >= self.since
        return known and self.release in ("", release)


POOL_TESTS = "backends.postgresql.tests.Tests"

TABLE = (
    Expected(
        f"{POOL_TESTS}.test_connect_pool",
        "asks for psycopg_pool's own PoolTimeout; ours is another class of that name",
        drivers=("psycopg",),
    ),
    Expected(
        f"{POOL_TESTS}.test_pooling_health_checks",
        "reads psycopg_pool's private attribute _check",
        drivers=("psycopg",),
    ),
    Expected(
        f"{POOL_TESTS}.test_pool_check_can_be_overridden",
        "reads psycopg_pool's private attribute _check",
        drivers=("psycopg",),
        since=(6, 1),
    ),
    Expected(
        f"{POOL_TESTS}.test_pooling_not_support_persistent_connections",
        "wants CONN_MAX_AGE refused together with a pool; ours allows both",
        drivers=("psycopg",),
    ),
    Expected(
        f"{POOL_TESTS}.test_connect_pool_setting_ignored_for_psycopg2",
        "wants a pool refused with psycopg2, which ours supports",
        drivers=("psycopg2",),
    ),
    Expected(
        "backends.tests.ThreadTests.test_default_connection_thread_local",
        "wants each thread to hold a connection after its statement",
        release="transaction",
    ),
)


def release_of(options: Mapping[str, Any]) -> str:
    """The mode in which a run with these OPTIONS gives connections back."""
    pool = options.get("pool")
    return str(pool.get("release", "request")) if isinstance(pool, dict) else "request"


def where(
    table: Iterable[Expected],
    driver: str,
    series: tuple[int, int],
    labels: tuple[str, ...],
    release: str = "request",
) -> dict[str, Expected]:
    """The rows that apply in a run of *labels*, by test; no labels are all tests."""
    return {
        row.test: row
        for row in table
        if row.applies(driver, series, release) and covers(labels, row.test)
    }  # fmt: skip
