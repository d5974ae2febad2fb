"""The verdict on a statement beside what it did to a session of a real server.

Whatever is found changed, the verdict must have named.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from django_psycopg_pooled.session import Effect
from django_psycopg_pooled.statements.effects import effects_of
from tests.server.databases import Databases
from tests.server.support import DATABASE

if is_psycopg3:
    import psycopg as driver
else:
    import psycopg2 as driver  # type: ignore[no-redef]

# What can be seen of a session, by the effect that it is a trace of.
TRACES = {
    Effect.SETTINGS: "SELECT name, setting FROM pg_settings WHERE source = 'session'"
    " AND name NOT IN ('role', 'session_authorization')"
    " UNION ALL SELECT 'a.b', current_setting('a.b', true)"
    " UNION ALL SELECT 'local.a', current_setting('local.a', true)",
    Effect.ROLE: "SELECT current_user, session_user, current_setting('role')",
    Effect.CHANNELS: "SELECT pg_listening_channels()",
    Effect.LOCKS: "SELECT locktype, classid, objid, objsubid, mode FROM pg_locks"
    " WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    Effect.CURSORS: "SELECT name FROM pg_cursors WHERE is_holdable",
    Effect.PREPARED: "SELECT name FROM pg_prepared_statements WHERE from_sql",
    Effect.TEMPORARY: "SELECT relname FROM pg_class WHERE relpersistence = 't'"
    " AND relnamespace = pg_my_temp_schema()"
    " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()",
}

DIRTY = [
    "SET work_mem = '5MB'",
    "SET SESSION work_mem TO '5MB'; SELECT 1",
    "SET local.a = '1'",
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET NAMES 'LATIN1'",
    "SET SCHEMA 'pg_catalog'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET work_mem = '5MB'; RESET ALL; SET a.b = 'c'",
    "SELECT set_config('a.b', 'c', false)",
    'SELECT "pg_catalog" . "set_config" /* x */ (\'a.b\', \'c\', \'f\')',
    "SELECT E'a'\n'\\'' , set_config('a.b', 'c', false), E''",
    "SELECT 1 AS a$$, set_config('a.b', 'c', false) AS b$$",
    "SELECT U&'\\' UESCAPE '!', set_config('a.b', 'c', false), ''",
    "SELECT '\\', set_config('a.b', 'c', false), '\\'",
    "SELECT U&\"set\\005fconfig\"('a.b', 'c', false)",
    "SELECT 1 */* x /* y */ */ length(set_config('a.b', 'c', false)) -- */",
    "-- x\rSET a.b = 'c' -- \n",
    "WITH x AS MATERIALIZED (SELECT set_config('a.b', 'c', false)) TABLE x",
    "EXPLAIN ANALYZE SELECT set_config('a.b', 'c', false)",
    "COPY (SELECT set_config('a.b', 'c', false)) TO '/dev/null'",
    "UPDATE pg_settings SET setting = '5MB' WHERE name = 'work_mem'",
    "SELECT ts_stat($$SELECT to_tsvector(set_config('a.b', 'c', false))$$)",
    "DO $$BEGIN PERFORM set_config('a.b', 'c', false); END$$",
    "SET ROLE pg_monitor",
    "SET SESSION ROLE 'pg_monitor'",
    'SET "Role" = pg_monitor',
    "SET SESSION SESSION AUTHORIZATION somebody",
    "SET session_authorization TO somebody",
    "SELECT set_config('ro'\n'le', 'pg_monitor', false)",
    "LISTEN a",
    "SELECT pg_advisory_lock(1)",
    "VALUES (pg_try_advisory_lock_shared(1, 2))",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "PREPARE a AS SELECT 1",
    "PREPARE transaction (int) AS SELECT $1",
    "CREATE TEMP TABLE t (a int)",
    "CREATE OR REPLACE LOCAL TEMPORARY VIEW v AS SELECT 1 AS a",
    "CREATE TEMP SEQUENCE s",
    "SELECT 1 AS a INTO\n/* x */ GLOBAL TEMP t",
    "SELECT 1 insert INTO TEMP t",
    "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1 AS a",
    "CREATE TABLE \"pg_temp\" . t (a int)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "BEGIN; SET LOCAL search_path = 'pg_temp'; CREATE TABLE t (a int); COMMIT",
    "SELECT set_config('search_path', 'pg_temp', true); CREATE TABLE t (a int)",
]  # fmt: skip
CLEAN = [
    "SELECT 1",
    "BEGIN; SET LOCAL work_mem = '5MB'; SET LOCAL ROLE pg_monitor",
    "SELECT set_config('work_mem', '5MB', true)",
    "SELECT set_config('role', 'pg_monitor', 1::bool)",
    "SELECT 'set_config(''a.b'', ''c'', false)', $$; SET a.b = 1$$ -- ; SET a.b = 1",
    "BEGIN; SELECT pg_advisory_xact_lock(1)",
    "BEGIN; DECLARE c CURSOR FOR SELECT 1",
    "SELECT 1; NOTIFY a; UNLISTEN *",
    "SELECT random(), dblink FROM (VALUES (1)) AS x (dblink)",
]  # fmt: skip


@contextlib.contextmanager
def _session(databases: Databases) -> Iterator[Any]:
    connection = driver.connect(**databases.server.connect_kwargs(DATABASE))
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def _traces(cursor: Any) -> dict[Effect, list[Any]]:
    found = {}
    for effect, sql in TRACES.items():
        cursor.execute(sql)
        found[effect] = sorted(map(str, cursor.fetchall()))
    return found


def _what_it_changed(databases: Databases, sql: str) -> Effect:
    """Run *sql* in a new session and end its transaction, and say what is different then."""
    with _session(databases) as cursor:
        before = _traces(cursor)
        cursor.execute(sql)
        cursor.execute("COMMIT")
        after = _traces(cursor)
    return Effect(sum(effect for effect in TRACES if before[effect] != after[effect]))


@pytest.fixture
def databases_with_somebody(databases: Databases) -> Iterator[Databases]:
    """Also a role, who may not do much."""
    databases.server.psql("CREATE ROLE somebody")
    try:
        yield databases
    finally:
        databases.server.psql("DROP ROLE somebody")


def test_whatever_a_statement_changed_was_foreseen(databases_with_somebody: Databases) -> None:
    for sql in DIRTY:
        changed = _what_it_changed(databases_with_somebody, sql)
        assert changed, f"this changes nothing, so it tests nothing: {sql}"
        assert not changed & ~effects_of(sql), sql


def test_what_is_called_clean_changes_nothing(databases: Databases) -> None:
    for sql in CLEAN:
        assert not effects_of(sql), sql
        assert not _what_it_changed(databases, sql), sql


def test_a_backslash_hides_nothing_where_it_escapes_a_quote(databases: Databases) -> None:
    sql = "SELECT '\\', ', set_config('a.b', 'c', false) --'"
    with _session(databases) as cursor:
        cursor.execute("SET standard_conforming_strings = off")
        cursor.execute("SET escape_string_warning = off")
        cursor.execute("SET backslash_quote = on")
        cursor.execute(sql)
        cursor.execute("SELECT current_setting('a.b', true)")
        assert cursor.fetchone() == ("c",)
    assert effects_of(sql) & Effect.SETTINGS
