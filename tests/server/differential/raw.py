"""Statements written by hand, as cursor.execute() takes them."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connections

from tests.server.differential.comparison import Db, Statement

BOOK = "differential_book"
NOTE = "differential_note"


def sql(text: str, *params: Any) -> Statement:
    return lambda db: db.rows(text, *params)


def named(db: Db) -> Any:
    with connections[db.alias].cursor() as cursor:
        cursor.execute("SELECT %(a)s::int + %(b)s::int, %(a)s::text", {"a": 1, "b": 2})
        return cursor.fetchall()


def many(db: Db) -> Any:
    with connections[db.alias].cursor() as cursor:
        cursor.execute(f"DELETE FROM {NOTE} WHERE key > %s", [0])
        cursor.executemany(
            f"INSERT INTO {NOTE} (key, text, flag, words) VALUES (%s, %s, %s, %s)",
            [(1, "a", True, []), (2, "b", False, ["x"])],
        )
        cursor.execute(f"SELECT key, text FROM {NOTE} WHERE key > %s ORDER BY key", [0])
        return cursor.fetchall()


def in_pieces(db: Db) -> Any:
    with connections[db.alias].cursor() as cursor:
        cursor.execute(f"SELECT id, title FROM {BOOK} WHERE id > %s ORDER BY id", [2])
        return [cursor.fetchone(), cursor.fetchmany(3), list(cursor), cursor.fetchone()]


def twice(db: Db) -> Any:
    with connections[db.alias].cursor() as cursor:
        cursor.execute("SELECT %s::int", [1])
        cursor.execute("SELECT %s::text, 2", ["a"])
        return cursor.fetchall()


def with_changing_types(db: Db) -> Any:
    """One text with parameters of many types, as an untyped parameter takes them."""
    values = (1, 2**40, 2**70, 1.5, Decimal("1.5"), "x", None, True, date(2024, 1, 1), 2)
    return [db.rows("SELECT %s, %s IS NULL", v, v) for v in values]


def with_changing_nulls(db: Db) -> Any:
    text = f"SELECT id FROM {BOOK} WHERE pages > %s OR price = %s OR title = %s ORDER BY id"
    values = ((1, None, None), (None, Decimal(5), None), (None, None, "x"), (None, None, None))
    return [db.rows(text, *given) for given in values]


STATEMENTS: dict[str, Statement] = {
    "a parameter alone": sql("SELECT %s", 1),
    "a text alone": sql("SELECT %s", "x"),
    "a null alone": sql("SELECT %s", None),
    "a boolean alone": sql("SELECT %s, NOT %s", True, False),
    "integers of all sizes": sql("SELECT %s, %s, %s, %s", 1, 2**31, 2**63, -(2**63)),
    "integer division": sql("SELECT %s / %s, %s %% %s", 7, 2, 7, 2),
    "decimal division": sql("SELECT %s / %s", Decimal(7), Decimal(2)),
    "float division": sql("SELECT %s / %s", 7.0, 2.0),
    "floats": sql("SELECT %s, %s, %s", 0.1, 1e300, -0.0),
    "float specials": sql("SELECT %s, %s, %s", float("inf"), float("-inf"), float("nan")),
    "decimals": sql("SELECT %s, %s", Decimal("1.10"), Decimal("-1E-20")),
    "a date, a time, a moment, a duration": sql(
        "SELECT %s, %s, %s, %s",
        date(2024, 2, 29), time(1, 2), datetime(2024, 2, 29, tzinfo=UTC), timedelta(days=2),
    ),
    "dates before Christ are no dates": sql("SELECT %s < %s", date(1, 1, 1), date.max),
    "a uuid": sql("SELECT %s", UUID(int=3)),
    "bytes": sql("SELECT %s, length(%s)", b"\x00'\\", b"abc"),
    "lists": sql("SELECT %s, %s, %s", [1, 2], ["a", "b'c"], [Decimal("1.5")]),
    "a list of dates": sql("SELECT %s", [date(2024, 1, 1)]),
    "a list with null": sql("SELECT %s", [1, None]),
    "an empty list": sql("SELECT %s::int[]", []),
    "a list of lists": sql("SELECT %s", [[1, 2], [3, 4]]),
    "= ANY": sql(f"SELECT id FROM {BOOK} WHERE id = ANY(%s) ORDER BY id", [1, 3, 5]),
    "= ANY of texts": sql(f"SELECT id FROM {BOOK} WHERE title = ANY(%s)", ["Book 2.0"]),
    "<> ALL of none": sql(f"SELECT count(*) FROM {BOOK} WHERE id <> ALL(%s::int[])", []),
    "one parameter twice": sql("SELECT %s::int, %s::int", 4, 4),
    "percent": sql("SELECT %s || '%%', 'a%%b' LIKE %s", "x", "a%%"),
    "percent, doubled": sql("SELECT '%%%%s', %s", 1),
    "a placeholder in quotes": sql("SELECT '%%s', %s", 1),
    "a dollar in a string": sql("SELECT '$1', %s", 1),
    "a dollar-quoted string": sql("SELECT $$it's$$, %s", 1),
    "a semicolon in a string": sql("SELECT ';', %s", 1),
    "a semicolon at the end": sql("SELECT %s;", 1),
    "two statements": sql("SELECT %s; SELECT %s", 1, 2),
    "a comment": sql("SELECT /* a ' b */ %s -- c\n", 1),
    "upper case, line breaks": sql("\n\n  select\n\t%s\n", 1),
    "with": sql("WITH t AS (SELECT %s::int AS a) SELECT a + %s FROM t", 1, 2),
    "with recursive": sql(
        "WITH RECURSIVE t(n) AS (VALUES (%s) UNION ALL SELECT n + 1 FROM t WHERE n < %s)"
        " SELECT sum(n) FROM t", 1, 10,
    ),
    "values": sql("VALUES (%s, %s), (%s, %s)", 1, "a", 2, "b"),
    "in parentheses": sql("(SELECT %s) UNION ALL (SELECT %s) ORDER BY 1", 1, 2),
    "generate_series": sql("SELECT * FROM generate_series(%s, %s)", 1, 5),
    "generate_series of dates": sql(
        "SELECT * FROM generate_series(%s::date, %s::date, %s)",
        date(2024, 1, 1), date(2024, 1, 3), timedelta(days=1),
    ),
    "interval from a text": sql("SELECT %s::interval", "3 days"),
    "interval literal": sql("SELECT interval %s", "3 days"),
    "date literal": sql("SELECT date %s", "2024-02-29"),
    "text to integer": sql("SELECT %s::int + 1", "41"),
    "text beside a column": sql(f"SELECT id FROM {BOOK} WHERE id = %s", "3"),
    "integer beside a text column": sql(f"SELECT id FROM {BOOK} WHERE title = %s::text", 5),
    "date from a text": sql(
        f"SELECT id FROM {BOOK} WHERE published > %s ORDER BY id", "2004-01-01"
    ),
    "like": sql(f"SELECT id FROM {BOOK} WHERE title LIKE %s ORDER BY id", "Book 3%"),
    "limit and offset": sql(f"SELECT id FROM {BOOK} ORDER BY id LIMIT %s OFFSET %s", 3, 2),
    "order by a parameter": sql(f"SELECT id FROM {BOOK} ORDER BY id, %s LIMIT 3", 1),
    "coalesce": sql("SELECT coalesce(%s, %s), coalesce(%s, 5)", None, "a", None),
    "concat": sql("SELECT concat(%s, %s, %s)", "a", 1, None),
    "format": sql("SELECT format(%s, %s)", "<%s>", "a"),
    "pg_typeof": sql(
        "SELECT pg_typeof(%s)::text, pg_typeof(%s)::text, pg_typeof(%s)::text, pg_typeof(%s)::text",
        1, 2**40, "x", 1.5,
    ),
    "jsonb": sql("SELECT %s::jsonb -> %s, %s::jsonb @> %s::jsonb", '{"a": 1}', "a", "[1]", "1"),
    "jsonb key by question mark": sql("SELECT '{\"a\": 1}'::jsonb ? %s", "a"),
    "json_build_object": sql("SELECT jsonb_build_object('a', %s::int)", 1),
    "array of parameters": sql("SELECT ARRAY[%s, %s], %s = ANY(ARRAY[1, 2])", 1, 2, 2),
    "row": sql("SELECT (%s, %s) = (1, 'a'), ROW(%s::int)::text", 1, "a", 5),
    "case": sql("SELECT CASE WHEN %s > 5 THEN %s ELSE %s END", 7, "a", "b"),
    "the column names": sql("SELECT %s AS a, %s::int AS \"B c\", 1, %s::text", 1, 2, "x"),
    "no rows": sql(f"SELECT id, title FROM {BOOK} WHERE id = %s", -1),
    "update": sql(f"UPDATE {BOOK} SET pages = pages WHERE id > %s", 3),
    "update returning": sql(f"UPDATE {BOOK} SET pages = pages WHERE id = %s RETURNING id", 3),
    "delete": sql(f"DELETE FROM {BOOK} WHERE id < %s", 0),
    "explain": sql("EXPLAIN (COSTS OFF) SELECT %s", 1),
    "show": sql("SHOW TimeZone"),
    "a setting": sql("SELECT current_setting(%s)", "TimeZone"),
    "without parameters": sql("SELECT '%', 1"),
    "cursor by names": named,
    "executemany": many,
    "in pieces": in_pieces,
    "one cursor, two statements": twice,
    "one text, many types": with_changing_types,
    "one text, many nulls": with_changing_nulls,
}  # fmt: skip
