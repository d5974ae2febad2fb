"""Random borrowers never see what others did: each finds a session like a new one. PAINS 26, 27."""

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.pool.pool import Pool
from tests.server.databases import Databases
from tests.server.support import assert_adds_up, pool_of

# One row that says all by which a session can be told from a new one.
FINGERPRINT = """SELECT
    (SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings
     WHERE source = 'session' AND name NOT IN ('transaction_isolation', 'transaction_read_only')),
    nullif(current_setting('shop.tenant', true), ''), current_setting('search_path'),
    current_setting('timezone'), current_user::text, session_user::text, current_setting('role'),
    (SELECT array_agg(c) FROM pg_listening_channels() AS c),
    (SELECT array_agg(objid) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    (SELECT array_agg(name) FROM pg_cursors WHERE name <> ''),
    (SELECT array_agg(name) FROM pg_prepared_statements WHERE from_sql),
    (SELECT array_agg(relname) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
    (SELECT array_agg(proname) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()),
    (SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid() AND state <> 'active')
"""

DIRTYING = [
    "SET work_mem = '5MB'",
    "SET SESSION search_path = pg_catalog",
    "SET shop.tenant = '7'",
    "/* x */ SET TIME ZONE 'Asia/Tokyo'",
    "SELECT set_config('shop.tenant', '8', false)",
    "WITH a AS MATERIALIZED (SELECT set_config('work_mem', '6MB', false)) SELECT * FROM a",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION pg_monitor",
    "LISTEN a",
    "SELECT pg_advisory_lock_shared(1)",
    "CREATE TEMP TABLE t (a int)",
    "SELECT 1 AS a INTO TEMP u",
    "SET search_path = pg_temp; CREATE TABLE v (a int)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "PREPARE a AS SELECT 1",
    "PREPARE b AS SELECT set_config('work_mem', '7MB', false)",
    "EXECUTE b",
    "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
    "BEGIN; DECLARE d CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "DO $$BEGIN PERFORM set_config('shop.tenant', '9', false); END$$",
    "SELECT 1; SET work_mem = '5MB'; SELECT 2",
    "COMMIT; SET work_mem = '8MB'; BEGIN",
]
CLEANING = [
    "RESET ALL", "RESET ROLE", "UNLISTEN *", "SELECT pg_advisory_unlock_all()", "DISCARD TEMP",
    "DEALLOCATE a", "CLOSE ALL", "DISCARD ALL",
]  # fmt: skip
TRANSACTION = [
    "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
]  # fmt: skip
HARMLESS = ["SELECT 1", "SET LOCAL work_mem = '5MB'", "SELECT 1/0"]
# What a borrower does through the driver; also without a statement that anybody could read.
BY_DRIVER = ["autocommit off", "autocommit on", "commit()", "rollback()"]
ACTIONS = [*DIRTYING, *CLEANING, *TRANSACTION, *TRANSACTION, *HARMLESS, *BY_DRIVER]

borrowers = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=8)),
    min_size=1,
    max_size=4,
)


def act(raw: Any, action: str) -> None:
    """One thing that a borrower does; what fails, fails."""
    with contextlib.suppress(DRIVER.Error):
        match action:
            case "autocommit off" | "autocommit on":
                raw.autocommit = action.endswith("on")
            case "commit()":
                raw.commit()
            case "rollback()":
                raw.rollback()
            case _:
                with raw.cursor() as cursor:
                    cursor.execute(action)


def fingerprint(raw: Any) -> tuple[Any, ...]:
    with raw.cursor() as cursor:
        cursor.execute(FINGERPRINT)
        return (*cursor.fetchone(), raw.autocommit, DRIVER.status(raw).name)


def assert_all_like_new(pool: Pool, new: tuple[Any, ...]) -> None:
    """Whoever borrows now, and whoever does so beside them, finds what a new session is."""
    leases: list[Lease] = []
    try:
        for _ in range(2):
            leases.append(pool.checkout())
            assert fingerprint(leases[-1].connection) == new
    finally:
        for lease in leases:
            pool.checkin(lease)


@pytest.mark.parametrize("reset", ["dirty", "always"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_next_borrower_never_sees_what_others_left(databases: Databases, reset: str) -> None:
    connection = databases.add(
        {"min_size": 0, "max_size": 2, "reset": reset}, TIME_ZONE="Europe/Madrid"
    )
    pool = pool_of(connection)
    with pool.connection() as raw:
        new = fingerprint(raw)
    dirtied = 0

    @settings(max_examples=150, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(borrowers)
    def borrow_at_random(turns: list[tuple[bool, list[str]]]) -> None:
        nonlocal dirtied
        for beside_another, actions in turns:
            other = pool.checkout() if beside_another else None
            lease = pool.checkout()
            for action in actions:
                act(lease.connection, action)
            dirtied += bool(lease.entry.session.dirt)
            pool.checkin(lease)
            if other is not None:
                pool.checkin(other)
            assert_all_like_new(pool, new)

    borrow_at_random()
    assert_adds_up(pool)
    assert reset == "always" or dirtied > 50, (
        "too few borrowers left something for this to prove anything"
    )
