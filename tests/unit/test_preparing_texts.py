"""Which texts are for preparing, as far as the text tells."""

import pytest

from django_psycopg_pooled.drivers.preparing import is_outdated, is_refusal, numbered
from django_psycopg_pooled.preparing.texts import closer_objection, objection, placeholders

FIT = [
    "SELECT a FROM t WHERE id = %s",
    '  select "a" from "t" where "id" in (%s, %s)',
    "(SELECT %s::int) UNION (SELECT %s::int)",
    "WITH x AS (SELECT %s::int) SELECT * FROM x",
    "INSERT INTO t VALUES (%s) RETURNING id",
    "UPDATE t SET a = a %% %s WHERE id = %s",
    "SELECT a FROM t WHERE id > %s LIMIT 10",
    'SELECT \'a\' || %s, "a""b" FROM t /* a comment */',
    "SELECT 'unknown', 'a-b', '1.5', '{\"a\": 1}' FROM t WHERE a = %s",
    "SELECT offset_ FROM t WHERE offset_ = %s",
]


@pytest.mark.parametrize("sql", FIT)
def test_what_the_orm_writes_is_fit(sql: str) -> None:
    assert objection(sql, registered=False) == closer_objection(sql) == ""


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a int DEFAULT %s)",
        "SET x = %s",
        "SELECTED %s",
        "SELECT 1",
        "SELECT a %%s FROM t",
        "SELECT %s; DELETE FROM t",
        "SELECT %(a)s",
        "SELECT %b",
        "SELECT $1, %s",
        "SELECT %s FROM t LIMIT 5 OFFSET 10",
        "SELECT %s FROM t LIMIT 5 OFFSET 10 FOR UPDATE",
        "SELECT a FROM (SELECT a FROM t WHERE b = %s LIMIT 5 OFFSET 10) x",
        "SELECT %s, '" + 20_000 * "x" + "'",
    ],
)
def test_what_no_prepare_can_do_is_refused_at_sight(sql: str) -> None:
    assert objection(sql, registered=False)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '%s', %s",
        "SELECT interval '%s days'",
        "SELECT $$ %s $$",
        "SELECT E'\\'%s', %s",
        'SELECT "a%s"',
        "SELECT %s -- or %s",
        "SELECT /* %s */ %s",
        "SELECT * FROM part_%s WHERE id = %s",
        "SELECT %s0",
        "SELECT %sa",
        "SELECT a.%s_b",
        "SELECT %s%s",
        "SELECT a %%s, %s",
    ],
)
def test_a_placeholder_that_is_no_parameter_is_refused(sql: str) -> None:
    assert closer_objection(sql)


@pytest.mark.parametrize(
    "moment",
    [
        "'now'",
        "'TODAY'",
        "E'now'",
        "'2020-01-01'",
        "'12:30'",
        "'1.2.2020'",
        "$$now$$",
        "'January 8, 1999'",
    ],
)
def test_a_moment_in_quotes_is_refused_since_it_would_be_read_once(moment: str) -> None:
    assert closer_objection(f"SELECT * FROM t WHERE a > {moment}::timestamptz AND b = %s")


def test_placeholders_are_numbered_and_doubled_signs_are_single_again() -> None:
    assert numbered("SELECT %s %% %s, '100%%', %s") == "SELECT $1 % $2, '100%', $3"
    assert placeholders("SELECT %s %% %s, '100%%s', %s") == 3


def test_a_refusal_is_told_from_what_befalls_any_statement() -> None:
    assert all(map(is_refusal, ("42P18", "0A000", "22007", "54023", "42601")))
    assert not any(map(is_refusal, ("", "57014", "08006", "40001", "55P03", "53300", "25P02")))


def test_what_is_outdated_is_told_from_other_errors_of_the_same_code() -> None:
    assert is_outdated("0A000", "RevalidateCachedQuery", "cached plan must not change result type")
    assert is_outdated("XX000", "getTypeInputInfo", "cache lookup failed for type 17020")
    assert not is_outdated("0A000", "transformColumnRef", "cross-database references")
    assert not is_outdated("XX000", "fmgr_info_cxt_security", "cache lookup failed for function 5")
    assert not is_outdated("XX000", None, None)
    assert not is_outdated("42704", "lookup_type", "cache lookup failed for type 17020")
