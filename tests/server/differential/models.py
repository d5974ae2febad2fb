"""Models with every kind of field, and the rows that the statements read."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.contrib.postgres.fields import (
    ArrayField,
    BigIntegerRangeField,
    DateRangeField,
    DateTimeRangeField,
    DecimalRangeField,
    HStoreField,
    IntegerRangeField,
)
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.backends.postgresql.psycopg_any import (
    DateRange,
    DateTimeTZRange,
    NumericRange,
)
from django.db.models import Value
from django.db.models.functions import Cast, Concat, Upper

EXTENSIONS = ("hstore", "citext", "unaccent", "pg_trgm")


if TYPE_CHECKING:
    _TextField = models.TextField[Any, Any]
else:
    _TextField = models.TextField


class CITextField(_TextField):
    """Text that compares without case; Django's own is gone since 5.1."""

    def db_type(self, connection: Any) -> str:
        return "citext"


class Country(models.Model):
    name = models.CharField(max_length=40)
    code = models.CharField(max_length=2, unique=True)

    class Meta:
        app_label = "differential"


class Author(models.Model):
    name = models.CharField(max_length=40)
    country = models.ForeignKey(Country, models.CASCADE, null=True, related_name="authors")
    born = models.DateField(null=True)

    class Meta:
        app_label = "differential"


class Tag(models.Model):
    name = models.CharField(max_length=20, unique=True)

    class Meta:
        app_label = "differential"


class Book(models.Model):
    title = models.CharField(max_length=80)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    pages = models.IntegerField(null=True)
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    rating = models.FloatField(null=True)
    published = models.DateField(null=True)
    tags = models.ManyToManyField(Tag, related_name="books")

    class Meta:
        app_label = "differential"


class Everything(models.Model):
    """One field of each kind, each of which may be null."""

    boolean = models.BooleanField(null=True)
    small = models.SmallIntegerField(null=True)
    integer = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    positive_small = models.PositiveSmallIntegerField(null=True)
    positive = models.PositiveIntegerField(null=True)
    positive_big = models.PositiveBigIntegerField(null=True)
    real = models.FloatField(null=True)
    decimal = models.DecimalField(max_digits=30, decimal_places=10, null=True)
    char = models.CharField(max_length=40, null=True)
    text = models.TextField(null=True)
    slug = models.SlugField(null=True)
    email = models.EmailField(null=True)
    url = models.URLField(null=True)
    file = models.FileField(null=True)
    citext = CITextField(null=True)
    date = models.DateField(null=True)
    time = models.TimeField(null=True)
    moment = models.DateTimeField(null=True)
    duration = models.DurationField(null=True)
    uuid = models.UUIDField(null=True)
    binary = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    json = models.JSONField(null=True)
    integers = ArrayField(models.IntegerField(null=True), null=True)
    bigs = ArrayField(models.BigIntegerField(), null=True)
    texts = ArrayField(models.TextField(), null=True)
    dates = ArrayField(models.DateField(), null=True)
    decimals = ArrayField(models.DecimalField(max_digits=12, decimal_places=3), null=True)
    uuids = ArrayField(models.UUIDField(), null=True)
    grid = ArrayField(ArrayField(models.IntegerField()), null=True)
    hstore = HStoreField(null=True)
    integer_range = IntegerRangeField(null=True)  # type: ignore[misc]
    big_range = BigIntegerRangeField(null=True)  # type: ignore[misc]
    decimal_range = DecimalRangeField(null=True)  # type: ignore[misc]
    date_range = DateRangeField(null=True)  # type: ignore[misc]
    moment_range = DateTimeRangeField(null=True)  # type: ignore[misc]
    vector = SearchVectorField(null=True)
    doubled = models.GeneratedField(
        expression=Cast("integer", models.BigIntegerField()) * 2,
        output_field=models.BigIntegerField(),
        db_persist=True,
    )
    shouted = models.GeneratedField(
        expression=Upper("char"), output_field=models.CharField(max_length=40), db_persist=True
    )

    class Meta:
        app_label = "differential"


class Note(models.Model):
    """What the writing statements write; empty before and after each."""

    key = models.IntegerField(unique=True)
    text = models.CharField(max_length=20, default="")
    number = models.SmallIntegerField(null=True)
    amount = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    real = models.FloatField(null=True)
    flag = models.BooleanField(default=False)
    at = models.DateTimeField(null=True)
    data = models.JSONField(null=True)
    words = ArrayField(models.TextField(), default=list)
    author = models.ForeignKey(Author, models.CASCADE, null=True, db_constraint=True)
    stamp = models.CharField(max_length=20, db_default=Value("stamped"))
    label = models.GeneratedField(
        expression=Concat("text", Value("!")),
        output_field=models.CharField(max_length=21),
        db_persist=True,
    )

    class Meta:
        app_label = "differential"
        constraints = (
            models.CheckConstraint(condition=models.Q(number__lt=100), name="number_is_small"),
        )


MODELS: tuple[type[models.Model], ...] = (Country, Author, Tag, Book, Everything, Note)

# What each field holds in the rows of Everything: an ordinary value, an extreme, an odd one.
SAMPLES: dict[str, tuple[Any, Any, Any]] = {
    "boolean": (True, False, True),
    "small": (7, 2**15 - 1, -(2**15)),
    "integer": (70_000, 2**31 - 1, -(2**31)),
    "big": (5_000_000_000, 2**63 - 1, -(2**63)),
    "positive_small": (7, 2**15 - 1, 0),
    "positive": (70_000, 2**31 - 1, 0),
    "positive_big": (5_000_000_000, 2**63 - 1, 0),
    "real": (1.5, 1.7976931348623157e308, float("nan")),
    "decimal": (Decimal("12.5"), Decimal("99999999999999999999.9999999999"), Decimal("-0.1")),
    "char": ("plain", 'O\'Neill \\ 100% "q" $1 %s {x}', ""),
    "text": ("two\nlines", "é漢字🙂 ' \\' \t", " "),
    "slug": ("a-slug", "z" * 50, "0"),
    "email": ("a@example.org", "o'b@example.org", "%@example.org"),
    "url": ("https://example.org/?a=b&c=%20", "http://x", "http://y/$1"),
    "file": ("a/b.txt", "c%s.txt", "d"),
    "citext": ("MixedCase", "ÉCOLE", "%"),
    "date": (date(2024, 2, 29), date.max, date(1, 1, 1)),
    "time": (time(12, 30), time(23, 59, 59, 999_999), time(0)),
    "moment": (
        datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        datetime(9999, 12, 31, 12, tzinfo=UTC),
        datetime(1, 1, 2, tzinfo=UTC),
    ),
    "duration": (
        timedelta(hours=1, minutes=30),
        timedelta(days=100_000, microseconds=1),
        timedelta(days=-1, seconds=1),
    ),
    "uuid": (uuid.UUID(int=1), uuid.UUID(int=2**128 - 1), uuid.UUID(int=0)),
    "binary": (b"\x00\x01'\\", bytes(range(256)), b""),
    "address": ("192.168.0.1", "2001:db8::1", "::"),
    "json": (
        {"a": [1, 2.5, None, "x'y"], "b": {"c": True}, "n": 2**70, "k%": "é"},
        ["a", 1, {"b": None}],
        "only a string",
    ),
    "integers": ([1, 2, 3], [2**31 - 1, None, -(2**31)], []),
    "bigs": ([1, 2**40], [2**63 - 1], []),
    "texts": (["a", "b'c"], ["{x,y}", 'q"q', "\\", "", "NULL", "%s"], []),
    "dates": ([date(2024, 2, 29)], [date.max, date(1, 1, 1)], []),
    "decimals": ([Decimal("1.5")], [Decimal("999999999.999"), Decimal("-0.001")], []),
    "uuids": ([uuid.UUID(int=1)], [uuid.UUID(int=0), uuid.UUID(int=2)], []),
    "grid": ([[1, 2], [3, 4]], [[-1]], []),
    "hstore": ({"a": "1", "b'": None}, {'q"': "\\", "": "%s"}, {}),
    "integer_range": (NumericRange(1, 5), NumericRange(None, 2**31 - 1), NumericRange(empty=True)),
    "big_range": (NumericRange(1, 2**40), NumericRange(-(2**63), None), NumericRange(empty=True)),
    "decimal_range": (
        NumericRange(Decimal("0.5"), Decimal("1.5"), "[]"),
        NumericRange(None, None),
        NumericRange(empty=True),
    ),
    "date_range": (
        DateRange(date(2024, 1, 1), date(2024, 3, 1)),
        DateRange(None, date(2024, 1, 1)),
        DateRange(empty=True),
    ),
    "moment_range": (
        DateTimeTZRange(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        DateTimeTZRange(datetime(2024, 1, 1, tzinfo=UTC), None),
        DateTimeTZRange(empty=True),
    ),
    "vector": ("'fat':1 'cat':2", "'a''b':3A", ""),
}


def fill(alias: str) -> None:
    """Write the rows that all statements read, each with the same primary key everywhere."""
    everything = Everything._default_manager.using(alias)
    for number in range(3):
        everything.create(**{name: values[number] for name, values in SAMPLES.items()})
    everything.create()
    everything.create(integer=70_000, char="plain", text="Ünïcode", small=-1, json={"a": None})
    countries = [
        Country._default_manager.using(alias).create(name=name, code=code)
        for name, code in (("Finland", "FI"), ("Japan", "JP"), ("Ivory Coast", "CI"))
    ]
    tags = [Tag._default_manager.using(alias).create(name=name) for name in ("red", "blue", "old")]
    for number in range(6):
        author = Author._default_manager.using(alias).create(
            name=f"Author {number}",
            country=countries[number % 3] if number < 5 else None,
            born=date(1950 + number, 1 + number, 28) if number % 2 else None,
        )
        for serial in range(number):
            book = Book._default_manager.using(alias).create(
                title=f"Book {number}.{serial}",
                author=author,
                pages=None if serial == 3 else 100 * number + serial,
                price=Decimal(number * 10 + serial) / 4,
                rating=None if serial == 2 else number / 3,
                published=date(2000 + number, 1 + serial, 1),
            )
            book.tags.set(tags[: serial % 4])
