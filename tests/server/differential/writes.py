"""Statements that write. Each begins with the same three notes, so that its runs are alike."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Case, Exists, F, JSONField, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Concat, Length

from tests.server.differential.comparison import Db, Statement
from tests.server.differential.models import Author, Book, Note

AT = datetime(2024, 2, 29, 12, tzinfo=UTC)
SOME = {"update_fields": ["text", "number"], "unique_fields": ["key"]}


def writing(step: Callable[[Any], Any]) -> Statement:
    """What *step* gives for a manager of three notes, and all notes afterwards."""

    def statement(db: Db) -> Any:
        notes = db.anew(Note)
        notes.bulk_create(
            Note(key=key, text=f"note {key}", number=key, amount=Decimal(key) / 2, at=AT)
            for key in (1, 2, 3)
        )
        return step(notes), list(notes.order_by("key"))

    return statement


def changed(note: Note, **values: Any) -> Note:
    for name, value in values.items():
        setattr(note, name, value)
    return note


def saved(notes: Any, how: dict[str, Any], **values: Any) -> Note:
    note = changed(notes.get(key=1), **values)
    note.save(**how)
    return note


def changed_in_bulk(notes: Any, **values: list[Any]) -> Any:
    objects = list(notes.order_by("key"))
    for name, each in values.items():
        for note, value in zip(objects, each, strict=True):
            setattr(note, name, value)
    return notes.bulk_update(objects, list(values))


def fresh(*keys: int, **values: Any) -> list[Note]:
    return [Note(key=key, **values) for key in keys]


STATEMENTS: dict[str, Statement] = {
    "create": writing(lambda n: n.create(key=4, text="x", data={"a": 1}, words=["a"])),
    "create with nulls": writing(lambda n: n.create(key=4, number=None, amount=None, data=None)),
    "create with a database default": writing(lambda n: n.create(key=4).stamp),
    "create with an expression": writing(
        lambda n: n.create(key=4, text=Concat(Value("a"), Value("b"), Value("c")))
    ),
    "create with a function of a value": writing(
        lambda n: n.create(key=4, number=Length(Value("four")), real=Value(2) * Value(1.5))
    ),
    "create with float specials": writing(
        lambda n: [n.create(key=5, real=float("inf")), n.create(key=6, real=float("-inf")),
                   n.create(key=7, real=float("nan"))]
    ),
    "create an integer in a decimal column": writing(lambda n: n.create(key=4, amount=3)),
    "create rounds a decimal": writing(lambda n: n.create(key=4, amount=Decimal("1.255"))),
    "create an integer in a float column": writing(lambda n: n.create(key=4, real=2**60)),
    "create with a given id": writing(lambda n: n.create(pk=2**40, key=4)),
    "get_or_create": writing(
        lambda n: [n.get_or_create(key=4, defaults={"text": "new"}), n.get_or_create(key=4)]
    ),
    "update_or_create": writing(
        lambda n: [
            n.update_or_create(key=4, defaults={"text": "new"}),
            n.update_or_create(key=4, defaults={"text": "newer", "number": F("key") + 1}),
        ]
    ),
    "save": writing(lambda n: saved(n, {}, text="saved", number=None, data=["x"])),
    "save of some fields": writing(lambda n: saved(n, {"update_fields": ["text"]}, text="s")),
    "save with an expression": writing(lambda n: saved(n, {}, number=F("number") + 10)),
    "save forced": writing(lambda n: saved(n, {"force_update": True}, flag=True)),
    "save as new": writing(lambda n: saved(n, {"force_insert": True}, pk=None, key=9)),
    "refresh_from_db": writing(lambda n: n.get(key=2).refresh_from_db(fields=["text"])),
    "bulk_create": writing(lambda n: n.bulk_create(fresh(4, 5, 6, text="b"))),
    "bulk_create of one": writing(lambda n: n.bulk_create(fresh(4))),
    "bulk_create with ids": writing(
        lambda n: n.bulk_create([Note(pk=900 + k, key=k) for k in (4, 5)])
    ),
    "bulk_create in batches": writing(lambda n: n.bulk_create(fresh(*range(4, 15)), batch_size=3)),
    "bulk_create with mixed nulls": writing(
        lambda n: n.bulk_create(
            [Note(key=4, number=None, amount=1), Note(key=5, number=7, data={"k": None}),
             Note(key=6, at=AT, flag=True, real=0.1, words=["a", ""])]
        )
    ),
    "bulk_create that ignores conflicts": writing(
        lambda n: n.bulk_create(fresh(1, 4, text="again"), ignore_conflicts=True)
    ),
    "bulk_create that updates conflicts": writing(
        lambda n: n.bulk_create(fresh(1, 4, text="up", number=5), update_conflicts=True, **SOME)
    ),
    "update with a value": writing(lambda n: n.filter(key=1).update(text="updated")),
    "update with many values": writing(
        lambda n: n.filter(key__gte=2).update(
            text="u", number=5, amount=Decimal("7.25"), real=1.5, flag=True, at=None,
            data={"x": ["y"]}, words=["a", "b'c"], author=2,
        )
    ),
    "update to null": writing(lambda n: n.update(number=None, amount=None, data=None, at=None)),
    "update to json null": writing(
        lambda n: n.filter(key=1).update(data=Value(None, output_field=JSONField()))
    ),
    "update with F": writing(lambda n: n.update(number=F("number") + 1, amount=F("amount") * 2)),
    "update with F times a float": writing(lambda n: n.update(amount=F("amount") * 1.5)),
    "update a smallint by a quotient": writing(lambda n: n.update(number=F("key") / 2)),
    "update with a case": writing(
        lambda n: n.update(
            text=Case(When(key=1, then=Value("one")), When(key=2, then="stamp"), default="text"),
            number=Case(When(key__gt=1, then=Value(50)), default=Value(60)),
        )
    ),
    "update with a subquery": writing(
        lambda n: n.update(
            number=Subquery(
                Book._default_manager.using(n.db).filter(author=3, pages=OuterRef("key") + 299)
                .values("author_id")[:1]
            )
        )
    ),
    "update with coalesce": writing(lambda n: n.update(number=Coalesce(F("real"), Value(5)))),
    "update by a subquery": writing(
        lambda n: n.filter(
            Exists(Author._default_manager.using(n.db).filter(pk=OuterRef("key"), country=1))
        ).update(flag=True)
    ),
    "update of nothing": writing(lambda n: n.filter(key=999).update(text="never")),
    "update of an array": writing(lambda n: n.update(words=["x"] * 3)),
    "update of an array to empty": writing(lambda n: n.update(words=[])),
    "update with a cast text": writing(lambda n: n.filter(key="2").update(number="12")),
    "bulk_update": writing(lambda n: changed_in_bulk(n, text=["a", "b'c", "%s"])),
    "bulk_update of many fields": writing(
        lambda n: changed_in_bulk(
            n, number=[1, None, -5], amount=[None, Decimal("1.5"), 2], real=[1, 2.5, None],
            flag=[True, False, True], at=[AT, None, AT], data=[None, [1], {"a": None}],
            words=[[], ["a"], ["b", ""]],
        )
    ),
    "bulk_update with expressions": writing(
        lambda n: changed_in_bulk(n, number=[F("key") + 1, Value(7), 3])
    ),
    "delete": writing(lambda n: n.filter(key__in=[1, 3]).delete()),
    "delete of nothing": writing(lambda n: n.filter(key=999).delete()),
    "delete one": writing(lambda n: n.get(key=2).delete()),
    "delete by a join": writing(lambda n: n.filter(author__country__code="FI").delete()),
    "delete by a condition": writing(lambda n: n.filter(Q(number__gt=2) | Q(text="x")).delete()),
    "foreign key by object": writing(
        lambda n: n.create(key=4, author=Author._default_manager.using(n.db).get(pk=2))
    ),
    "add to many to many": lambda db: [
        (book := db(Book).get(pk=1)),
        book.tags.add(1, 2),
        list(book.tags.order_by("pk")),
        book.tags.remove(2),
        book.tags.set([3]),
        list(book.tags.order_by("pk")),
        book.tags.clear(),
    ],
}  # fmt: skip
