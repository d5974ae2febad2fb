"""Which IN lists become arrays, and how these are written; nothing is executed."""

import datetime
import decimal
import itertools
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models import F, Q, Value
from django.db.models.functions import Abs, Upper
from django.test import override_settings
from django.test.utils import register_lookup

from django_psycopg_pooled.integration.in_arrays import SHORTEST, ArrayText
from tests.server.support import ENGINE

STOCK = "django.db.backends.postgresql"
COUNT = 10
NUMBERS = list(range(COUNT))
TEXTS = [f"t{number}" for number in NUMBERS]
DAYS = [datetime.date(2026, 1, 1) + datetime.timedelta(number) for number in NUMBERS]
MOMENTS = [datetime.datetime(2026, 1, 1, hour, tzinfo=datetime.UTC) for hour in NUMBERS]


class Kind(models.TextChoices):
    """Elements that are strings of a class of their own."""

    A = "a"
    B = "b"


class Leaf(models.Model):
    """A column of each type."""

    parent = models.ForeignKey("self", models.CASCADE, null=True)
    small = models.SmallIntegerField(null=True)
    count = models.IntegerField(null=True)
    name = models.CharField(max_length=20, null=True)
    note = models.TextField(null=True)
    key = models.UUIDField(null=True)
    day = models.DateField(null=True)
    at = models.DateTimeField(null=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    size = models.FloatField(null=True)
    hour = models.TimeField(null=True)
    address = models.GenericIPAddressField(null=True)
    data = models.JSONField(null=True)
    raw = models.BinaryField(null=True)

    class Meta:
        app_label = "unit_in_arrays"


numbers = itertools.count(1)


@pytest.fixture
def alias(request: pytest.FixtureRequest) -> Iterator[str]:
    """An alias that prepares, or whose settings the test's parameter says."""
    name = f"arrays{next(numbers)}"
    entry = getattr(request, "param", {"OPTIONS": {"pool": {"prepare": "auto"}}})
    filled = connections.configure_settings({"default": {}, name: {"ENGINE": ENGINE, **entry}})
    connections.settings[name] = filled[name]
    yield name
    del connections[name]
    del connections.settings[name]


def compiled(alias: str, *args: Any, **kwargs: Any) -> tuple[str, Sequence[Any]]:
    """The condition that filter(*args, **kwargs) compiles to, and its parameters."""
    query = Leaf._default_manager.using(alias).filter(*args, **kwargs).values("pk").query
    sql, params = query.get_compiler(using=alias).as_sql()
    return sql.partition(" WHERE ")[2].replace('"unit_in_arrays_leaf".', ""), params


@pytest.mark.parametrize(
    ("lookup", "values", "condition", "array"),
    [
        ("pk__in", NUMBERS, '"id" = ANY(%s::int8[])', "{0,1,2,3,4,5,6,7,8,9}"),
        ("parent__in", NUMBERS, '"parent_id" = ANY(%s::int8[])', "{0,1,2,3,4,5,6,7,8,9}"),
        ("small__in", NUMBERS, '"small" = ANY(%s::int4[])', "{0,1,2,3,4,5,6,7,8,9}"),
        ("count__in", NUMBERS, '"count" = ANY(%s::int4[])', "{0,1,2,3,4,5,6,7,8,9}"),
        ("name__in", TEXTS, '"name" = ANY(%s)', '{"' + '","'.join(TEXTS) + '"}'),
        ("note__in", TEXTS, '"note" = ANY(%s)', '{"' + '","'.join(TEXTS) + '"}'),
        (
            "key__in", [uuid.UUID(int=number) for number in NUMBERS], '"key" = ANY(%s::uuid[])',
            '{"' + '","'.join(f"00000000-0000-0000-0000-00000000000{n}" for n in NUMBERS) + '"}',
        ),
        (
            "day__in", DAYS, '"day" = ANY(%s::date[])',
            '{"' + '","'.join(f"2026-01-{n + 1:02}" for n in NUMBERS) + '"}',
        ),
        (
            "at__in", MOMENTS, '"at" = ANY(%s::timestamptz[])',
            '{"' + '","'.join(f"2026-01-01T0{n}:00:00+00:00" for n in NUMBERS) + '"}',
        ),
        (
            "price__in", [decimal.Decimal(number) for number in NUMBERS],
            '"price" = ANY(%s::numeric[])', "{0,1,2,3,4,5,6,7,8,9}",
        ),
    ],
)  # fmt: skip
def test_a_list_becomes_an_array_of_the_columns_type(
    alias: str, lookup: str, values: Sequence[object], condition: str, array: str
) -> None:
    sql, params = compiled(alias, **{lookup: values})
    assert sql == condition
    assert [text + "" for text in params] == [array]


def test_the_text_is_the_same_for_every_length(alias: str) -> None:
    texts = {compiled(alias, pk__in=range(length))[0] for length in range(1, 151)}
    assert len(texts) == SHORTEST


def test_lists_that_are_short_without_duplicates_and_none_stay(alias: str) -> None:
    sql, params = compiled(alias, count__in=[*range(SHORTEST - 1), *range(5), None])
    assert sql == '"count" IN (' + ", ".join(["%s"] * (SHORTEST - 1)) + ")"
    assert len(params) == SHORTEST - 1
    assert "ANY" in compiled(alias, count__in=[*range(SHORTEST), None])[0]


def test_an_element_that_is_too_large_for_the_column_makes_all_larger(alias: str) -> None:
    assert compiled(alias, count__in=[*NUMBERS, 2**31 - 1])[0] == '"count" = ANY(%s::int4[])'
    assert compiled(alias, count__in=[*NUMBERS, 2**31])[0] == '"count" = ANY(%s::int8[])'
    assert compiled(alias, count__in=[*NUMBERS, -(2**31) - 1])[0] == '"count" = ANY(%s::int8[])'
    assert " IN (" in compiled(alias, count__in=[*NUMBERS, 2**63])[0]
    assert " IN (" in compiled(alias, pk__in=[*NUMBERS, -(2**63) - 1])[0]


@pytest.mark.parametrize(
    "condition",
    [
        Q(size__in=[number + 0.5 for number in NUMBERS]),
        Q(hour__in=[datetime.time(hour) for hour in NUMBERS]),
        Q(address__in=[f"10.0.0.{number}" for number in NUMBERS]),
        Q(data__in=NUMBERS),
        Q(raw__in=[bytes([number]) for number in NUMBERS]),
        Q(name__in=[*TEXTS, Kind.A]),
        Q(count__in=[*NUMBERS, F("small")]),
        Q(count__in=[*NUMBERS, Abs(Value(3))]),
        Q(at__year__in=NUMBERS),
        Q(data__a__in=NUMBERS),
        Q(pk__in=Leaf._default_manager.filter(count__gt=1)),
    ],
)
def test_what_might_mean_something_else_stays(alias: str, condition: Q) -> None:
    sql, _ = compiled(alias, condition)
    assert " IN (" in sql
    assert "ANY" not in sql


def test_datetimes_without_a_time_zone_stay(alias: str) -> None:
    naive = [moment.replace(tzinfo=None) for moment in MOMENTS]
    with override_settings(USE_TZ=False):
        assert " IN (" in compiled(alias, at__in=naive)[0]


def test_a_transform_of_the_column_or_of_both_sides_stays(alias: str) -> None:
    class BothUpper(Upper):
        bilateral = True

    for transform in (Upper, BothUpper):
        with register_lookup(models.CharField, transform):
            assert " IN (" in compiled(alias, name__upper__in=TEXTS)[0]


@pytest.mark.parametrize("values", [[], [None], [None] * 20])
def test_an_empty_list_finds_nothing_as_before(alias: str, values: list[None]) -> None:
    with pytest.raises(EmptyResultSet):
        compiled(alias, pk__in=values)


def test_a_lookup_of_the_users_own_is_left_alone(alias: str) -> None:
    class AtLeastOneIn(models.lookups.In):
        lookup_name = "at_least_one_in"

    with register_lookup(models.IntegerField, AtLeastOneIn):
        assert " IN (" in compiled(alias, count__at_least_one_in=NUMBERS)[0]


@pytest.mark.parametrize(
    "alias",
    [
        {"ENGINE": STOCK},
        {"OPTIONS": {"pool": False}},
        {"OPTIONS": {"pool": {"prepare": False}}},
        {"OPTIONS": {"pool": {"pooler": "pgbouncer"}}},
    ],
    indirect=True,
    ids=str,
)
def test_lists_stay_where_nothing_is_prepared(alias: str) -> None:
    sql, params = compiled(alias, pk__in=NUMBERS)
    assert sql.startswith('"id" IN (%s, ')
    assert list(params) == NUMBERS


@pytest.mark.parametrize(
    "element",
    ["", " ", "NULL", "a,b", "{}", '"', "\\", '\\"', "it's", "%s", "%", "\n", "ä€😀", "\x01"],
)
def test_any_character_may_stand_in_an_element(alias: str, element: str) -> None:
    """Read back as array_in() reads: within quotes a backslash takes the next character as is."""
    _, [array] = compiled(alias, name__in=[*TEXTS, element])
    written = str.__getitem__(array, slice(None))
    assert written.startswith('{"t0","t1",')
    last = written.removesuffix('"}').partition('"t9","')[2]
    read, characters = "", iter(last)
    for character in characters:
        assert character != '"'
        read += next(characters) if character == "\\" else character
    assert read == element


def test_the_query_as_text_can_be_executed() -> None:
    assert "{}".format(ArrayText("{1,2}")) == "'{1,2}'"
    assert str(ArrayText('{"it\'s"}')) == "'{\"it''s\"}'"
    assert ArrayText("{1,2}") == "{1,2}"
