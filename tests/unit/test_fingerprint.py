"""What statements have in common; and that nothing that anybody typed is in it."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_psycopg_pooled.statements.fingerprint import LONGEST, fingerprint

SECRET = "hunter2"
SELECT = 'SELECT "order"."id" FROM "order" WHERE "order"."id" IN ({}) LIMIT 21'
# Letters of every kind of piece, so that they meet in every order.
PIECES = [
    "'", '"', "$", "$$", "$a$", "\\", "\\'", "''", "/*", "*/", "--", "\n", " ", "/", "*", "-",
    "E'", "U&'", 'U&"', "b'", "(", ")", "[", "]", ",", "IN (", "in(", "VALUES ", "ARRAY[", "%s",
    "%(a)s", "%", "?", "?|", "::int", "1", ".5", "1e-5", "x", "id_2", "T3.", "SET a = ", "\x00",
    "s12_x1", "_django_curs_1_", "é", "\u2028", "...", ";", "NULL", "SELECT ", "$1", "+",
]  # fmt: skip
texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ("SELECT 1", "SELECT ?"),
        ("SELECT 'it''s', E'it\\'s', N'x', b'01', X'1F' , U&'\\0061'", "SELECT ?, ?, ?, ?, ? , ?"),
        ("SELECT $$it's$$, $a$ $$ $b$ $a$", "SELECT ?, ?"),
        ("SELECT 1.5, .5, 5., 1e10, 1.5E-3, 0x1F, 1_000, -7", "SELECT ?, ?, ?, ?, ?, ?, ?, -?"),
        ("SELECT x LIMIT 21 OFFSET 40", "SELECT x LIMIT ? OFFSET ?"),
        ("SELECT %s, %(name)s, %(p1)s, $1", "SELECT %s, %(name)s, %(p1)s, $1"),
        ("SELECT %s::int4, '1'::text, x::char(10)", "SELECT %s::int4, ?::text, x::char(?)"),
        ('SELECT "t1"."id2", T3.a1 FROM "t 1" T3', 'SELECT "t1"."id2", T3.a1 FROM "t 1" T3'),
        ('SELECT "a""1", "it\'s 5"', 'SELECT "a""1", "it\'s 5"'),
        ("SELECT a ? 'k', a ?| %s, a ?& %s, a->>'k'", "SELECT a ? ?, a ?| %s, a ?& %s, a->>?"),
        ("SELECT a %% 2, a % 2, a%(1)", "SELECT a %% ?, a % ?, a%(?)"),
        ("SELECT\n\t a ,  b", "SELECT a , b"),
        ("SELECT a -- why\nFROM b /* who /* knows */ it */ WHERE c", "SELECT a FROM b WHERE c"),
        ("SELECT a /*controller='x',route='%2Forders%2F5'*/", "SELECT a"),
        ("SELECT a /*+ SeqScan(b) */ FROM b", "SELECT a FROM b"),
        ("SELECT a IN (SELECT b FROM c)", "SELECT a IN (SELECT b FROM c)"),
        ("SELECT a IN (b, 1)", "SELECT a IN (b, ?)"),
        ("SELECT a NOT IN (1,NULL, 'x', TRUE)", "SELECT a NOT IN (...)"),
        ("SELECT a in(%s::int, (%s)::uuid[] , -5)", "SELECT a in(...)"),
        ("SELECT (a, b) IN ((%s, %s), (1, 'x'))", "SELECT (a, b) IN (...)"),
        ("SELECT a IN (%(a)s, %(b)s)", "SELECT a IN (...)"),
        ("SELECT a = ANY(ARRAY[%s, %s]::int[])", "SELECT a = ANY(ARRAY[...]::int[])"),
        ("SELECT f(a IN (%s), b IN (%s, %s))", "SELECT f(a IN (...), b IN (...))"),
        (
            "INSERT INTO a (b, c) VALUES (%s, DEFAULT), (f(%s, g('x)')), 5) RETURNING id",
            "INSERT INTO a (b, c) VALUES (...) RETURNING id",
        ),
        ("INSERT INTO a VALUES(1),(2)", "INSERT INTO a VALUES(...)"),
        ('SAVEPOINT "s140_x12"', 'SAVEPOINT "..."'),
        ("ROLLBACK TO SAVEPOINT s140_x12", "ROLLBACK TO SAVEPOINT ..."),
        ('FETCH 100 FROM "_django_curs_140_sync_3"', 'FETCH ? FROM "..."'),
        ("SET search_path TO tenant_a, public", "SET search_path TO ..."),
        ("SET LOCAL shop.tenant = 'a'", "SET LOCAL shop.tenant = ..."),
        ("set role bob", "set role ..."),
        ("UPDATE a SET b = 5, c = c + 1", "UPDATE a SET b = ?, c = c + ?"),
        ("SELECT 1;", "SELECT ?;"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_statement(sql: str, kept: str) -> None:
    assert fingerprint(sql) == kept


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT '{SECRET}",
        f'SELECT "{SECRET}',
        f"SELECT /* {SECRET}",
        f"SELECT /* /* {SECRET} */",
        f"SELECT $a${SECRET}$b$",
        f"SELECT $ {SECRET}",
        f"SELECT E'x\\'{SECRET}",
        f"SELECT 'x\\' || '{SECRET}' || '\\'",  # in whichever way the session reads a backslash
        f"SELECT 'x\\', {SECRET}'",
        f"SELECT E'a'\n'b\\'{SECRET}'",
        f"SELECT U&'\\\\' || '{SECRET}'",
        f"SELECT %(it's)s, '{SECRET}'",
        f"SELECT 1{SECRET}",
        f"ALTER ROLE bob PASSWORD '{SECRET}'",
        f"NOTIFY a, '{SECRET}'",
        f"COPY a FROM PROGRAM $x$echo {SECRET}$x$",
    ],
)
def test_no_literal_survives_not_even_one_that_is_read_in_two_ways(sql: str) -> None:
    assert SECRET not in fingerprint(sql)


@given(texts)
@example("VALUES (((((IN ((%s))))))")
@example("a/**/'b")
def test_it_changes_nothing_in_its_own_result(sql: str) -> None:
    once = fingerprint(sql)
    assert fingerprint(once) == once
    assert len(once) <= LONGEST


@given(st.sampled_from(["'{}'", "E'{}'", "$${}$$", "U&'{}'", "$a${}$a$", "b'{}'"]), texts)
def test_no_quoted_literal_survives_whatever_comes_behind_it(quotes: str, behind: str) -> None:
    assert SECRET not in fingerprint(f"SELECT {quotes.format(SECRET)}{behind}")


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_survives(whole: int, real: float) -> None:
    kept = fingerprint(f"SELECT a1 FROM b WHERE c > {whole} AND d < {real!r}")
    assert re.findall("[0-9]", kept) == ["1"]


def test_lists_of_every_length_are_one_statement() -> None:
    lengths = [1, 2, 3, 10, 1_000, 9_000]
    for value in ("%s", "1", "'x'", "%s::uuid", "(%s, %s)"):
        kept = {fingerprint(SELECT.format(", ".join([value] * n))) for n in lengths[:5]}
        assert kept == {SELECT.format("...").replace("21", "?")}
    for row in ("(%s)", "(%s, %s, %s)", "(%s, DEFAULT, now(), 'x')"):
        kept = {fingerprint("INSERT INTO a VALUES " + ", ".join([row] * n)) for n in lengths}
        assert kept == {"INSERT INTO a VALUES (...)"}


def test_a_text_too_long_to_be_read_ends_with_the_list_in_which_reading_stopped() -> None:
    for n in range(9_000, 9_030):
        assert fingerprint(SELECT.format(", ".join(["%s"] * n))).endswith('"id" IN (...)')
        rows = ", ".join([f"(%s, {n})"] * n)
        assert fingerprint(f"INSERT INTO a VALUES {rows}") == "INSERT INTO a VALUES (...)"


def test_a_long_text_is_cut_and_no_name_with_it() -> None:
    sql = "SELECT " + ", ".join(f'"column {i}"' for i in range(1000))
    kept = fingerprint(sql)
    assert len(kept) <= LONGEST
    assert kept.endswith("...")
    assert kept.count('"') % 2 == 0


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_in_proportion_to_the_length_for_any_text(piece: str) -> None:
    for more in ("", "a", "(", "%s, "):
        sql = (piece + more) * (20_000 // len(piece + more))
        began = time.thread_time()
        fingerprint(sql)
        # 20 times of what the slowest takes; were it quadratic, it would take a thousand times.
        assert time.thread_time() - began < 0.2


def test_unlike_statements_stay_apart() -> None:
    assert len(set(map(fingerprint, ["SELECT a", "SELECT b", "SELECT a, b", 'SELECT "a"']))) == 4
