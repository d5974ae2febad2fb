"""Statements made of every field: its lookups, and its values as they come and go."""

from typing import Any

from django.db.models import F, Value
from django.db.models.functions import Coalesce

from tests.server.differential.comparison import Db, Statement
from tests.server.differential.models import SAMPLES, Everything

# Two NaN are equal for PostgreSQL only, and its json and ranges know no order that Python has.
ORDERED = (
    "small", "integer", "big", "positive", "positive_big", "real", "decimal", "char", "text",
    "citext", "date", "time", "moment", "duration", "uuid", "address", "integers", "texts",
    "integer_range", "date_range", "moment_range",
)  # fmt: skip
FIELDS = {field.name: field for field in Everything._meta.get_fields() if field.name in SAMPLES}


def found(name: str) -> Statement:
    """By each value, by a list of them, and by none."""

    def statement(db: Db) -> Any:
        rows = db(Everything).order_by("id")
        return [
            *(list(rows.filter(**{name: value})) for value in SAMPLES[name]),
            list(rows.filter(**{f"{name}__in": SAMPLES[name]}).values_list("id", name)),
            list(rows.filter(**{f"{name}__isnull": True}, id__lt=90).values("id")),
        ]

    return statement


def by_order(name: str) -> Statement:
    low, high = SAMPLES[name][2], SAMPLES[name][1]

    def statement(db: Db) -> Any:
        rows = db(Everything).order_by("id")
        return [
            list(rows.filter(**{f"{name}__{lookup}": value}).values_list("id", name))
            for lookup in ("gt", "gte", "lt", "lte")
            for value in (low, high)
        ]

    return statement


def as_value(name: str) -> Statement:
    """The value itself in the list of columns, with the field's type and where NULL stood."""
    ordinary, extreme, odd = SAMPLES[name]
    field: Any = FIELDS[name]

    def statement(db: Db) -> Any:
        return (
            db(Everything)
            .annotate(
                given=Value(extreme, output_field=field),
                filled=Coalesce(F(name), Value(ordinary, output_field=field)),
                odd=Value(odd, output_field=field),
            )
            .order_by("id")
            .values_list("id", "given", "filled", "odd")
        )

    return statement


def written(name: str) -> Statement:
    """Inserted, updated by save(), by update(), to NULL, read back, and deleted."""
    ordinary, extreme, odd = SAMPLES[name]

    def statement(db: Db) -> Any:
        seen: list[Any] = []
        row = db.anew(Everything, 5).create(**{name: ordinary})
        for value in (extreme, odd, None):
            setattr(row, name, value)
            row.save(using=db.alias, update_fields=[name])
            seen += db(Everything).filter(pk=row.pk).values(name)
        for value in (odd, None, ordinary):
            seen.append(db(Everything).filter(pk=row.pk).update(**{name: value}))
            seen += db(Everything).filter(pk=row.pk).values(name)
        return seen, db(Everything).filter(pk=row.pk).delete()

    return statement


STATEMENTS: dict[str, Statement] = {
    **{f"{name} found": found(name) for name in SAMPLES},
    **{f"{name} above and below": by_order(name) for name in ORDERED},
    **{f"{name} as Value()": as_value(name) for name in SAMPLES},
    **{f"{name} written": written(name) for name in SAMPLES},
    "all fields created at once": lambda db: [
        (row := db.anew(Everything, 5).create(**{k: v[1] for k, v in SAMPLES.items()})),
        db(Everything).get(pk=row.pk),
        row.delete(),
    ],
}
