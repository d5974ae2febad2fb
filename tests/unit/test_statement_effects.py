"""What a statement does to its session, read from its text: nothing dirty is called clean."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_psycopg_pooled.session import ANYTHING, Effect
from django_psycopg_pooled.statements.effects import effects_of

CLEAN = Effect(0)
SETTINGS = Effect.SETTINGS
ROLE = Effect.ROLE
CHANNELS = Effect.CHANNELS
TEMPORARY = Effect.TEMPORARY
CURSORS = Effect.CURSORS
LOCKS = Effect.LOCKS
PREPARED = Effect.PREPARED
LASTING = Effect.LASTING
ENDS = Effect.ENDS_TRANSACTION

# Texts that a quick look and a thorough one must judge alike; see below.
QUERIES = {
    "SELECT 1": CLEAN,
    "select 1": CLEAN,
    "SELECT": CLEAN,
    "\n\t SELECT 1\n": CLEAN,
    "(SELECT 1) UNION ((SELECT 2))": CLEAN,
    "SELECT * FROM a WHERE x = %s AND y = %(name)s AND z = $1 AND w LIKE '50%%'": CLEAN,
    'SELECT "shop_order"."id" FROM "shop_order" WHERE ("x" = %s) ORDER BY 1 LIMIT 21': CLEAN,
    "SELECT a.temp, temporary, \"temp\", '(' FROM attempts AS temp": CLEAN,
    "SELECT template, 'into' FROM t": CLEAN,
    "SELECT now() AT TIME ZONE 'UTC', E'it\\'s', $$it's$$": CLEAN,
    "SELECT a & 1, u & 'x' FROM t": CLEAN,
    "SELECT set_config FROM t": CLEAN,
    "SELECT my_set_config(1), set_configuration(2), set_config_x(3)": CLEAN,
    "SELECT 'set_config(1)', 'it''s set_config(2)'": CLEAN,
    "SELECT $$ set_config(1) $$, $a$ $b$ pg_temp.x $$ $a$": CLEAN,
    "SELECT 1 -- set_config(1)": CLEAN,
    "SELECT 1 /* set_config(1) /* nested */ pg_temp.x */ + 1": CLEAN,
    "SELECT 'C:\\temp\\x', 'a\\\\', 'b'": CLEAN,
    "SELECT ';', \";\", $$;$$, E'\\';' -- ;": CLEAN,
    "SELECT U&'d\\0061t'": CLEAN,
    "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1, 2)": CLEAN,
    "SELECT pg_try_advisory_xact_lock(%s)": CLEAN,
    "SELECT nextval('s'), lo_create(0), pg_notify('a', 'b'), seed FROM seed": CLEAN,
    "SELECT dblink('SELECT 1'), dblink_exec('x'), dblink_connection": CLEAN,
    "SELECT name FROM pg_settings": CLEAN,
    "SELECT current_setting('role')": CLEAN,
    "SELECT query_to_xml('SELECT 1', true, true, '')": CLEAN,
    "INSERT INTO t (a) VALUES (%s) RETURNING id": CLEAN,
    "INSERT INTO temp VALUES (1)": CLEAN,
    "INSERT INTO t (a) SELECT temp FROM x": CLEAN,
    "MERGE INTO temp USING s ON true WHEN MATCHED THEN DELETE": CLEAN,
    "UPDATE t SET a = 1 WHERE b = 'x;y'": CLEAN,
    "UPDATE settings SET role = 'x'": CLEAN,
    "DELETE FROM t": CLEAN,
    "WITH x AS (SELECT 1), y AS (DELETE FROM t RETURNING 1) SELECT * FROM x, y": CLEAN,
    "VALUES (1), (2)": CLEAN,
    "TABLE t": CLEAN,
    "/* a tag */ SELECT 1": CLEAN,
    "-- a tag\nSELECT 1": CLEAN,
    # Calls.
    "SELECT set_config('a.b', 'c', false)": SETTINGS,
    "SELECT set_config('a.b', 'c', %s)": SETTINGS,
    "SELECT set_config('a.b', %(value)s, %(is_local)s)": SETTINGS,
    "SELECT set_config('a.b', 'c', 'f')": SETTINGS,
    "SELECT set_config('a.b', 'c', NOT true)": SETTINGS,
    "SELECT set_config('a.b', 'c', true AND false)": SETTINGS,
    "SELECT set_config('a.b', 'c', \"true\")": SETTINGS,
    "SELECT set_config('a.b', 'c', true::text::x)": SETTINGS,
    "SELECT set_config('a.b', 'c', 1)": SETTINGS,
    "SELECT set_config('a.b', 'c', true), set_config('a.b', 'c', false)": SETTINGS,
    "SELECT set_config('a.b', concat('x', ',', 'true'), false)": SETTINGS,
    "SELECT set_config('a.b', (ARRAY['x', 'y'])[1], false)": SETTINGS,
    "SELECT set_config('a.b', 'c', true)": CLEAN,
    "SELECT set_config('a.b', %s, TRUE)": CLEAN,
    "SELECT set_config('a.b', coalesce('x', (SELECT 'y')), 't')": CLEAN,
    "SELECT set_config('a.b', 'c', 'ON'), set_config('a.b', 'c', '1')": CLEAN,
    "SELECT set_config('a.b', 'c', 1::boolean), set_config('a', 'b', 'true'::bool)": CLEAN,
    "SELECT set_config('role', 'admin', true)": CLEAN,
    "SELECT set_config('role', 'admin', false)": SETTINGS | ROLE,
    "SELECT set_config('Session_Authorization', 'admin', false)": SETTINGS | ROLE,
    "SELECT set_config(%s, %s, false)": SETTINGS | ROLE,
    "SELECT set_config(%(name)s, 'x', false)": SETTINGS | ROLE,
    "SELECT set_config(E'ro\\x6ce', 'x', false)": SETTINGS | ROLE,
    "SELECT set_config('ro\\x6ce', 'x', false)": SETTINGS | ROLE,
    "SELECT set_config('ro'\n'le', 'x', false)": SETTINGS | ROLE,
    "SELECT set_config('a' || 'b', 'x', false)": SETTINGS | ROLE,
    "SELECT set_config(name, 'x', false) FROM t": SETTINGS | ROLE,
    "SELECT set_config(is_local => true, a => 'x', b => 'y')": SETTINGS | ROLE,
    "SELECT set_config(a := 'x', b := 'y', is_local := true)": SETTINGS | ROLE,
    "SELECT set_config(VARIADIC ARRAY['a', 'b', 'c'])": SETTINGS | ROLE,
    "SELECT set_config('a', 'b', true, 1)": SETTINGS | ROLE,
    "SELECT set_config('a', 'b', true": SETTINGS | ROLE,
    "SELECT * FROM set_config()": SETTINGS | ROLE,
    "SELECT Set_Config ('a.b', 'c', false)": SETTINGS,
    "SELECT set_config/* x */('a.b', 'c', false)": SETTINGS,
    "SELECT set_config -- x\n('a.b', 'c', false)": SETTINGS,
    "SELECT pg_catalog.set_config('a.b', 'c', false)": SETTINGS,
    'SELECT "pg_catalog" . "set_config"(\'a.b\', \'c\', false)': SETTINGS,
    "SELECT * FROM t, LATERAL set_config('a.b', t.c, false)": SETTINGS,
    "SELECT 1 WHERE (SELECT set_config('a.b', 'c', false)) = ''": SETTINGS,
    "SELECT 'it''s', set_config('a.b', 'c', false)": SETTINGS,
    "SELECT $a$ $$ $a$, set_config('a.b', 'c', false)": SETTINGS,
    "SELECT E'\\'', set_config('a.b', 'c', false), '''": SETTINGS | ANYTHING,
    "SELECT E'a'\n'\\'' , set_config('a.b', 'c', false), E''": SETTINGS,
    "SELECT E'a' -- x\n 'b\\'' , set_config('a.b', 'c', false)": SETTINGS,
    "SELECT 1e'\\'', set_config('a.b', 'c', false)": SETTINGS,
    "SELECT a$$, set_config('a.b', 'c', false), b$$ FROM t": SETTINGS,
    "SELECT 1 */* x */ set_config('a.b', 'c', false)": SETTINGS,
    "SELECT 1 /*/ x */ , set_config('a.b', 'c', false)": SETTINGS,
    "SELECT 1 /* /* x */ */ , set_config('a.b', 'c', false)": SETTINGS,
    "SELECT 1 -- x\r, set_config('a.b', 'c', false)": SETTINGS,
    "SELECT '--', set_config('a.b', 'c', false)": SETTINGS,
    "SELECT \"/*\", set_config('a.b', 'c', false)": SETTINGS,
    'SELECT "a""", set_config(\'a.b\', \'c\', false), """"': SETTINGS,
    "WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x": SETTINGS,
    "WITH x AS MATERIALIZED (INSERT INTO t VALUES (1) RETURNING set_config('a.b','c',false))"
    " TABLE x": SETTINGS,
    "INSERT INTO t VALUES (set_config('a.b', 'c', false))": SETTINGS,
    "UPDATE t SET a = set_config('a.b', 'c', false)": SETTINGS,
    "DELETE FROM t WHERE a = set_config('a.b', 'c', false)": SETTINGS,
    "MERGE INTO t USING s ON set_config('a.b', 'c', false) = '' WHEN MATCHED THEN DELETE": SETTINGS,
    "VALUES (set_config('a.b', 'c', false))": SETTINGS,
    "((SELECT set_config('a.b', 'c', false)))": SETTINGS,
    "SELECT set_config('search_path', 'pg_temp', true)": TEMPORARY,
    "SELECT set_limit(0.5)": SETTINGS,
    "UPDATE pg_settings SET setting = 'x' WHERE name = 'y'": SETTINGS | ROLE,
    "UPDATE ONLY pg_catalog.pg_settings SET setting = 'x'": SETTINGS | ROLE,
    'update "pg_settings" as s set setting = %s': SETTINGS | ROLE,
    "SELECT pg_advisory_lock(1)": LOCKS,
    "SELECT PG_ADVISORY_LOCK_SHARED(1, 2)": LOCKS,
    "SELECT pg_try_advisory_lock(%s)": LOCKS,
    "SELECT pg_catalog.pg_try_advisory_lock_shared(%s)": LOCKS,
    "SELECT pg_advisory_unlock(1)": LOCKS,
    "SELECT pg_advisory_unlock_shared(1)": LOCKS,
    "SELECT pg_advisory_unlock_all()": LOCKS,
    "SELECT id FROM t WHERE pg_try_advisory_lock(id) LIMIT 1": LOCKS,
    "SELECT pg_advisory_lock(1), set_config('a.b', 'c', false)": LOCKS | SETTINGS,
    "SELECT dblink_connect('x')": LASTING,
    "SELECT dblink_connect_u('n', 'x')": LASTING,
    "SELECT public.dblink_open('c', 'SELECT 1')": LASTING,
    "SELECT pg_replication_origin_session_setup('x')": LASTING,
    "SELECT pg_replication_origin_session_reset()": LASTING,
    "SELECT pg_create_physical_replication_slot('x', false, true)": LASTING,
    "SELECT pg_backup_start('x')": LASTING,
    "SELECT query_to_xml('SELECT set_config(''a.b'', ''c'', false)', true, true, '')": ANYTHING,
    "SELECT * FROM crosstab($$SELECT pg_advisory_lock(1)$$) AS (a int)": ANYTHING,
    # What is temporary.
    "SELECT 1 INTO TEMP t": TEMPORARY,
    "select a.b into temporary table t from a": TEMPORARY,
    "SELECT 1 INTO\n/* x */ LOCAL TEMP t": TEMPORARY,
    "SELECT 1 insert INTO TEMP t": TEMPORARY,
    "WITH x AS (SELECT 1) SELECT * INTO TEMP t FROM x": TEMPORARY,
    "SELECT * FROM pg_temp.t": TEMPORARY,
    "SELECT * FROM \"pg_temp_3\" . t": TEMPORARY,
    "INSERT INTO pg_temp.t VALUES (1)": TEMPORARY,
    "SELECT pg_temp.f(1)": TEMPORARY,
    "SELECT pg_temperature, pg_temp_x": CLEAN,
    # What cannot be read for sure.
    "SELECT U&\"set\\005fconfig\"('a.b', 'c', false)": ANYTHING,
    "SELECT '\\', set_config('a.b', 'c', false), '": ANYTHING,
    "SELECT 'a' '\\'' , pg_temp.x": ANYTHING,
    "SELECT pg_temp.x, 'it": ANYTHING,
    "SELECT pg_temp.x, \"it": ANYTHING,
    "SELECT pg_temp.x, $a$it$b$": ANYTHING,
    "SELECT pg_temp.x, $$it": ANYTHING,
    "SELECT pg_temp.x, E'it\\'": ANYTHING,
    "SELECT pg_temp.x /* /* */": ANYTHING,
    "SELECT %(it's)s, set_config('a.b', 'c', false), %(it's)s": ANYTHING,
}  # fmt: skip
OTHERS = {
    "": CLEAN,
    "  \n": CLEAN,
    ";": CLEAN,
    " ; ; ": CLEAN,
    "-- nothing": CLEAN,
    "/* nothing */": CLEAN,
    # SET and RESET.
    "SET LOCAL statement_timeout = 5": CLEAN,
    "set local role admin": CLEAN,
    "SET LOCAL SESSION AUTHORIZATION admin": CLEAN,
    'SET LOCAL "a"."b" = 1': CLEAN,
    "SET LOCAL TIME ZONE 'UTC'": CLEAN,
    "SET LOCAL search_path = 'pg_temp'": TEMPORARY,
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE": CLEAN,
    "SET TRANSACTION READ ONLY": CLEAN,
    "SET CONSTRAINTS ALL IMMEDIATE": CLEAN,
    "SET CONSTRAINTS a.b DEFERRED": CLEAN,
    "SET local.x = 1": SETTINGS,
    "SET local . x TO 1": SETTINGS,
    "SET transaction.x = 1": SETTINGS,
    "SET constraints.x = 1": SETTINGS,
    'SET "local" . x = 1': SETTINGS,
    "SET session.x = 1": SETTINGS,
    "SET role.x = 1": SETTINGS,
    "SET SESSION role.x = 1": SETTINGS,
    "SET statement_timeout = 5": SETTINGS,
    "SET SESSION statement_timeout TO 5": SETTINGS,
    "SET a.role = 1": SETTINGS,
    "SET TIME ZONE 'UTC'": SETTINGS,
    "SET NAMES 'UTF8'": SETTINGS,
    "SET SCHEMA 'x'": SETTINGS,
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": SETTINGS,
    "SET transaction_read_only = on": SETTINGS,
    "SET search_path = public, pg_temp": SETTINGS | TEMPORARY,
    "SET search_path = 'public', 'pg_temp'": SETTINGS | TEMPORARY,
    "SET ROLE admin": ROLE,
    "SET SESSION ROLE 'admin'": ROLE,
    "SET role = admin": ROLE,
    'SET "Role" TO admin': ROLE,
    "SET SESSION AUTHORIZATION admin": ROLE,
    "SET SESSION SESSION AUTHORIZATION admin": ROLE,
    "SET session_authorization = admin": ROLE,
    "RESET ROLE": ROLE,
    "RESET SESSION AUTHORIZATION": ROLE,
    "RESET session_authorization": ROLE,
    "RESET ALL": SETTINGS,
    "RESET statement_timeout": SETTINGS,
    "RESET TIME ZONE": SETTINGS,
    "RESET local.x": SETTINGS,
    "RESET TRANSACTION ISOLATION LEVEL": SETTINGS,
    "SET": SETTINGS,
    "SET U&\"role\" = 'x'": ANYTHING,
    # Channels, libraries, prepared statements, cursors.
    "LISTEN a": CHANNELS,
    'listen "A"': CHANNELS,
    "UNLISTEN *": CLEAN,
    "NOTIFY a, 'b'": CLEAN,
    "LOAD 'auto_explain'": LASTING,
    "DISCARD ALL": LASTING | SETTINGS | ROLE,
    "DISCARD PLANS": LASTING,
    "DISCARD TEMP": CLEAN,
    "DISCARD TEMPORARY": CLEAN,
    "DISCARD SEQUENCES": CLEAN,
    "DISCARD": ANYTHING,
    "DEALLOCATE ALL": LASTING | PREPARED,
    "DEALLOCATE PREPARE ALL": LASTING | PREPARED,
    "DEALLOCATE a": PREPARED,
    "PREPARE a AS SELECT 1": PREPARED,
    "PREPARE a (int, text) AS UPDATE t SET x = $1": PREPARED,
    "PREPARE transaction AS SELECT 1": PREPARED,
    "PREPARE a AS SELECT pg_advisory_lock(1)": PREPARED | LOCKS,
    "PREPARE a AS SELECT set_config('a.b', 'c', false)": PREPARED | SETTINGS | LASTING,
    "PREPARE a": ANYTHING,
    "PREPARE TRANSACTION 'a'": ENDS,
    "EXECUTE a (1)": CLEAN,
    "EXECUTE a (set_config('a.b', 'c', false))": SETTINGS,
    "DECLARE c CURSOR FOR SELECT 1": CLEAN,
    "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1": CLEAN,
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1": CURSORS,
    'DECLARE "for" NO SCROLL CURSOR with\nhold FOR SELECT 1': CURSORS,
    "DECLARE c CURSOR WITH HOLD FOR SELECT set_config('a.b', 'c', false)": CURSORS | SETTINGS,
    "FETCH 1 FROM c": CLEAN,
    "MOVE 1 FROM c": CLEAN,
    "CLOSE ALL": CLEAN,
    # Transactions.
    "BEGIN": CLEAN,
    "BEGIN ISOLATION LEVEL SERIALIZABLE": CLEAN,
    "START TRANSACTION READ ONLY": CLEAN,
    "START": ANYTHING,
    "SAVEPOINT \"s1_x1\"": CLEAN,
    "RELEASE SAVEPOINT \"s1_x1\"": CLEAN,
    "RELEASE a": CLEAN,
    "ROLLBACK TO SAVEPOINT \"s1_x1\"": CLEAN,
    "rollback  to a": CLEAN,
    "ROLLBACK/**/TO a": CLEAN,
    "ROLLBACK WORK TO SAVEPOINT a": CLEAN,
    "ROLLBACK TRANSACTION TO a": CLEAN,
    "ROLLBACK": ENDS,
    "ROLLBACK AND CHAIN": ENDS,
    "ROLLBACK WORK": ENDS,
    "ROLLBACK PREPARED 'to'": ENDS,
    "COMMIT": ENDS,
    "commit and chain": ENDS,
    "COMMIT PREPARED 'a'": ENDS,
    "END": ENDS,
    "ABORT": ENDS,
    # Definitions.
    "CREATE TABLE t (temp int)": CLEAN,
    "CREATE TABLE temp (a int)": CLEAN,
    "CREATE TABLE t AS SELECT 1": CLEAN,
    "CREATE TABLE t AS SELECT set_config('a.b', 'c', false)": SETTINGS,
    "CREATE TEMP TABLE t (a int)": TEMPORARY,
    "create temporary table t as select 1": TEMPORARY,
    "CREATE LOCAL TEMP TABLE t ()": TEMPORARY,
    "CREATE GLOBAL TEMPORARY TABLE t ()": TEMPORARY,
    "CREATE OR REPLACE TEMP RECURSIVE VIEW v (a) AS SELECT 1": TEMPORARY,
    "CREATE TEMP SEQUENCE s": TEMPORARY,
    "CREATE TABLE pg_temp.t ()": TEMPORARY,
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'": TEMPORARY,
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$SELECT set_config(1); COMMIT$$": CLEAN,
    "CREATE TEMP TABLE t AS SELECT set_config('a.b', 'c', false)": TEMPORARY | SETTINGS,
    "ALTER TABLE t ADD a int": CLEAN,
    "ALTER ROLE a SET statement_timeout = 5": CLEAN,
    "ALTER SYSTEM SET work_mem = '4MB'": CLEAN,
    "ALTER TABLE t ALTER a TYPE int USING pg_advisory_lock(1)": LOCKS,
    "DROP TABLE t": CLEAN,
    "TRUNCATE t": CLEAN,
    "COMMENT ON TABLE t IS 'set_config('": CLEAN,
    "GRANT a TO b": CLEAN,
    "REVOKE a FROM b": CLEAN,
    "REASSIGN OWNED BY a TO b": CLEAN,
    "SECURITY LABEL ON TABLE t IS 'x'": CLEAN,
    "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c": CLEAN,
    # Care of tables, and what only reads.
    "ANALYZE t": CLEAN,
    "CHECKPOINT": CLEAN,
    "CLUSTER t": CLEAN,
    "LOCK TABLE t": CLEAN,
    "REFRESH MATERIALIZED VIEW t": CLEAN,
    "REINDEX TABLE t": CLEAN,
    "VACUUM (ANALYZE) t": CLEAN,
    "SHOW search_path": CLEAN,
    "COPY t FROM STDIN": CLEAN,
    "COPY (SELECT pg_advisory_lock(1)) TO STDOUT": LOCKS,
    "EXPLAIN SELECT 1": CLEAN,
    "EXPLAIN (ANALYZE, FORMAT json) UPDATE t SET a = 1": CLEAN,
    "EXPLAIN ANALYSE VERBOSE EXECUTE a": CLEAN,
    "EXPLAIN (SELECT 1) UNION SELECT 2": CLEAN,
    "EXPLAIN ((SELECT 1))": CLEAN,
    "EXPLAIN": CLEAN,
    "EXPLAIN ANALYZE SELECT set_config('a.b', 'c', false)": SETTINGS,
    "EXPLAIN (SELECT set_config('a.b', 'c', false))": SETTINGS,
    "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1": TEMPORARY,
    "EXPLAIN (ANALYZE) DECLARE c CURSOR WITH HOLD FOR SELECT 1": CURSORS,
    "EXPLAIN ANALYZE something": ANYTHING,
    "EXPLAIN ANALYSE something": ANYTHING,
    # What we cannot look into.
    "DO $$BEGIN END$$": ANYTHING,
    "CALL p()": ANYTHING,
    "something": ANYTHING,
    "SELECTED": ANYTHING,
    '"select" 1': ANYTHING,
    "'select'": ANYTHING,
    "= 1": ANYTHING,
    "\u00a0SELECT 1": ANYTHING,
    # Several statements.
    "SELECT 1; SELECT 2;": CLEAN,
    "SELECT 1; SET a = 1": SETTINGS,
    "SELECT ';'; SET a = 1": SETTINGS,
    "SELECT 1;SET ROLE a;LISTEN b": ROLE | CHANNELS,
    "SELECT $$;$$; COMMIT": ENDS,
    "BEGIN; SET LOCAL a = 1; COMMIT": ENDS,
    "SELECT 1 -- x\n; SET a = 1": SETTINGS,
    "CREATE RULE r AS ON INSERT TO t DO (NOTIFY a; SET b = 1)": SETTINGS,
    "SET a = 1; SELECT 'it": SETTINGS | ANYTHING,
    "LOAD 'x'; SELECT 'it": LASTING | ANYTHING,
    # Statements behind comments.
    "/* x */ SET a = 1": SETTINGS,
    "-- SELECT\nSET a = 1": SETTINGS,
    "--\rSET a = 1 --\nSELECT": SETTINGS,
    "/* /* */ SELECT */ SET a = 1": SETTINGS,
    "/* SELECT */ SET a = 1": SETTINGS,
    "((SET a = 1": SETTINGS,
}  # fmt: skip
ALL = {**QUERIES, **OTHERS}


@pytest.mark.parametrize("sql", ALL)
def test_a_text_is_judged_by_what_it_does(sql: str) -> None:
    assert effects_of(sql) == ALL[sql]


@pytest.mark.parametrize("sql", QUERIES)
def test_a_quick_look_and_a_thorough_one_agree(sql: str) -> None:
    # A `;` before the query has it read token by token.
    assert effects_of(f";{sql}") == effects_of(sql)


@pytest.mark.parametrize("sql", QUERIES)
def test_what_a_query_does_shows_wherever_it_stands(sql: str) -> None:
    alone = effects_of(sql)
    for around in ("EXPLAIN ANALYZE {}", "DECLARE c CURSOR FOR {}", "SELECT 1; {}", "COPY ({}"):
        assert effects_of(around.format(sql)) & alone == alone


def test_the_answer_is_a_flag_of_the_session() -> None:
    assert type(effects_of("SELECT 1")) is Effect
    assert type(effects_of("SET a = 1")) is Effect


# No deadline: the machine may be busy with other tests.
random_texts = settings(max_examples=200, deadline=None, database=None)

# Without constants whose inside may not be touched, so that they can be respelled.
RESPELLED = [sql for sql in ALL if sql.isascii() and not re.search(r"""['"$%-]|/\*|U&|\r""", sql)]
SPACES = st.sampled_from([" ", "\n", "\t", "  \r\n", "\f", "/* x */", "/*;'/* $$ */\"*/", "--\n",
                          " -- it's; /*\n"])  # fmt: skip


@random_texts
@given(sql=st.sampled_from(RESPELLED), data=st.data())
def test_neither_case_nor_space_nor_comments_change_the_verdict(
    sql: str, data: st.DataObject
) -> None:
    words = re.findall(r"\w+|::|:=|=>|[^\w\s]", sql)
    cased = [data.draw(st.sampled_from([w, w.lower(), w.upper(), w.title()])) for w in words]
    spaced = "".join(data.draw(SPACES) + word for word in cased) + data.draw(SPACES)
    assert effects_of(spaced) == ALL[sql], spaced


_PIECES = (
    "SELECT set_config ( ) , ; ' '' E' U&' U&\" \" \"\" $$ $a$ $ /* */ -- \n \\ \\' % %s %( )s :: "
    ":= => . true false 1 pg_temp INTO TEMP CREATE SET LOCAL ROLE SESSION role = TO AUTHORIZATION "
    "PREPARE AS DECLARE WITH HOLD EXPLAIN ROLLBACK COMMIT pg_advisory_lock UPDATE pg_settings "
    "crosstab DISCARD ALL DEALLOCATE [ ] \r \0 ä é"
)
PIECES = _PIECES.split(" ")
pieces = st.lists(st.sampled_from(PIECES))


@random_texts
@given(pieces.map(" ".join) | pieces.map("".join) | st.text())
def test_no_text_makes_it_raise(sql: str) -> None:
    effects_of(sql)


@random_texts
@given(
    st.lists(st.sampled_from(PIECES), max_size=5)
    .map(" ".join)
    .filter(lambda text: not effects_of(f"SELECT {text}")),
    st.sampled_from(["SET a = 1", "SELECT set_config('a.b', 'c', false)"]),
)
def test_nothing_clean_hides_the_statement_after_it(before: str, statement: str) -> None:
    # A rest that cannot be read is called clean only if the server cannot read it either.
    after = f"SELECT {before}\n; {statement}"
    assert effects_of(after) & SETTINGS, after


def test_a_huge_text_is_judged_soon() -> None:
    began = time.monotonic()
    for text in ("(" * 200_000, "SELECT " + "'a' " * 50_000 + ";", " " * 200_000 + "x",
                 "/*" * 100_000, "SELECT '" + "\\a" * 100_000, "%(" * 5_000 + ";",
                 "$a$ " * 50_000, "set_config(" * 1_000 + ";"):  # fmt: skip
        effects_of(text)
    assert time.monotonic() - began < 10  # hours, if each place made it read the rest again


@random_texts
@given(st.integers(0, 10**6))
def test_a_number_in_the_text_changes_nothing(number: int) -> None:
    assert effects_of(f"SELECT {number}") == CLEAN
    assert effects_of(f"SET statement_timeout = {number}") == SETTINGS
