"""The tests of Django that our backend may fail, each with the reason; everything else must pass.

All are tied to the insides of psycopg_pool, which stock Django's pool is and ours is not.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from devtools.django_suite.labels import covers


@dataclass(frozen=True)
class Expected:
    """One row: a test, why it fails with ours, and where it does."""

    test: str
    reason: str
    drivers: tuple[str, ...] = ("psycopg", "psycopg2")
    since: tuple[int, int] = (5, 2)  # the first series of Django that has the test

    def applies(self, driver: str, series: tuple[int, int]) -> bool:
        """Whether the test exists and is not skipped there."""
        return driver in self.drivers and series >= self.since


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
)


def where(
    table: Iterable[Expected], driver: str, series: tuple[int, int], labels: tuple[str, ...]
) -> dict[str, Expected]:
    """The rows that apply in a run of *labels*, by test; no labels are all tests."""
    return {
        row.test: row
        for row in table
        if row.applies(driver, series) and covers(labels, row.test)
    }  # fmt: skip
