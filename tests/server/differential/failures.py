"""Statements that fail, in Python, in the server's parser, or when they run."""

from decimal import Decimal
from typing import Any

from django.db.models import F, Func, IntegerField, Value
from django.db.models.functions import Cast

from tests.server.differential.comparison import Db, Statement
from tests.server.differential.models import Author, Book, Everything, Note
from tests.server.differential.raw import sql
from tests.server.differential.writes import writing


def healthy_then_failing(db: Db) -> Any:
    """The same text, first with a parameter that is all right."""
    text = "SELECT 10 / %s::int"
    return [db.rows(text, 5), db.rows(text, 2), db.rows(text, 0)]


def failing_then_healthy(db: Db) -> Any:
    db.rows("SELECT %s::int", "no number")


STATEMENTS: dict[str, Statement] = {
    "a key twice": writing(lambda n: n.create(key=1)),
    "a key twice in bulk": writing(lambda n: n.bulk_create([Note(key=7), Note(key=7)])),
    "not null": writing(lambda n: n.filter(key=1).update(text=None)),
    "a check": writing(lambda n: n.create(key=4, number=100)),
    "a check by update": writing(lambda n: n.update(number=F("number") + 99)),
    "no such foreign key": lambda db: db.rows(
        "INSERT INTO differential_book_tags (book_id, tag_id) VALUES (%s, %s);"
        " SET CONSTRAINTS ALL IMMEDIATE",
        1, 999,
    ),
    "a text too long": writing(lambda n: n.create(key=4, text="x" * 21)),
    "a number too great": writing(lambda n: n.create(key=2**31)),
    "a smallint too great": writing(lambda n: n.filter(key=1).update(number=F("number") + 32767)),
    "a decimal too great": writing(lambda n: n.filter(key=1).update(amount=F("amount") * 10**9)),
    "an integer overflows": lambda db: (
        db(Book).filter(pk=1).annotate(x=F("pages") * 2**31 * 2**33).values_list("x").get()
    ),
    "division by zero": lambda db: (
        db(Book).filter(pk=1).annotate(x=F("pages") / 0).values_list("x").get()
    ),
    "modulo by zero": lambda db: (
        db(Book).filter(pk=1).annotate(x=F("price") % Value(Decimal(0))).values_list("x").get()
    ),
    "a bad cast": lambda db: (
        db(Book).filter(pk=1).annotate(x=Cast(Value("abc"), IntegerField())).values_list("x").get()
    ),
    "a bad regular expression": lambda db: list(db(Book).filter(title__regex="(")),
    "no such function": lambda db: (
        db(Book).filter(pk=1).annotate(
            x=Func(Value(1), function="no_such", output_field=IntegerField())
        ).values_list("x").get()
    ),
    "a NUL in a text": lambda db: list(db(Book).filter(title="a\0b")),
    "no text for an integer": lambda db: list(db(Author).filter(pk="x")),
    "more than one": lambda db: list(
        db(Author).filter(pk=db(Book).filter(pages__gt=0).values("author_id"))
    ),
    "json in a subscript": lambda db: list(db(Everything).extra(where=["json + %s"], params=[1])),
    "a syntax error": sql("SELEC %s", 1),
    "a syntax error after SELECT": sql("SELECT FROM WHERE %s", 1),
    "no such table": sql("SELECT * FROM nowhere WHERE id = %s", 1),
    "no such column": sql("SELECT nothing FROM differential_book WHERE id = %s", 1),
    "a number that is none": sql("SELECT %s::int", "x"),
    "a date that is none": sql("SELECT %s::date", "2023-02-29"),
    "a text beside an integer": sql("SELECT id FROM differential_book WHERE id = %s", "x"),
    "a type that fits nothing": sql("SELECT id FROM differential_book WHERE id = %s", [1]),
    "an ambiguous function": sql("SELECT jsonb_build_object(%s)", None),
    "division by zero by hand": sql("SELECT %s / %s", 1, 0),
    "too few parameters": sql("SELECT %s, %s", 1),
    "too many parameters": sql("SELECT %s", 1, 2),
    "a wrong placeholder": sql("SELECT %d", 1),
    "a lone percent": sql("SELECT 5 % 2, %s", 1),
    "a value of no known type": sql("SELECT %s", object),
    "raised": sql("SELECT * FROM json_populate_record(NULL::pg_class, %s)", "no json"),
    "first well, then by zero": healthy_then_failing,
    "a cast that fails at once": failing_then_healthy,
}  # fmt: skip
