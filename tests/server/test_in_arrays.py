"""IN lists as arrays find what IN lists find, whatever is in the column and in the list."""

import datetime
import decimal
import random
import re
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.core.exceptions import EmptyResultSet
from django.db import DataError, connections, models, transaction
from django.db.models import (
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    OuterRef,
    Q,
    Value,
    When,
)
from django.test.utils import CaptureQueriesContext

from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.in_arrays import SHORTEST
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases

FILLING = 9  # elements that are in no row, so that every list is long enough
UTC = datetime.UTC
KABUL = zoneinfo.ZoneInfo("Asia/Kabul")
LMT = datetime.timezone(datetime.timedelta(hours=2, minutes=36, seconds=14))
Decimal = decimal.Decimal


class Sample(models.Model):
    """A column of each type that has arrays."""

    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")
    small = models.SmallIntegerField(null=True)
    count = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    name = models.CharField(max_length=20, null=True)
    note = models.TextField(null=True)
    key = models.UUIDField(null=True)
    day = models.DateField(null=True)
    at = models.DateTimeField(null=True)
    price = models.DecimalField(max_digits=12, decimal_places=2, null=True)

    class Meta:
        app_label = "in_arrays"


class Legacy(models.Model):
    """A table that somebody else made, with columns of types that the model does not know."""

    folded = models.TextField()  # citext
    mood = models.CharField(max_length=10)  # an enum
    padded = models.CharField(max_length=8)  # character(8)
    short = models.CharField(max_length=20)  # a domain
    amount = models.IntegerField()  # numeric
    number = models.BigIntegerField()  # integer
    moment = models.DateTimeField()  # date

    class Meta:
        app_label = "in_arrays"
        managed = False


MAKE_LEGACY = """
    CREATE EXTENSION IF NOT EXISTS citext;
    CREATE TYPE in_arrays_mood AS ENUM (
        'glad', 'sad', 'it''s', 'm0', 'm1', 'm2', 'm3', 'm4', 'm5', 'm6', 'm7', 'm8');
    CREATE DOMAIN in_arrays_short AS varchar(20) CHECK (length(VALUE) < 10);
    CREATE TABLE in_arrays_legacy (
        id int PRIMARY KEY, folded citext, mood in_arrays_mood, padded char(8),
        short in_arrays_short, amount numeric,
        number int, moment date);
    INSERT INTO in_arrays_legacy VALUES
        (1, 'Anna', 'glad', 'ab', 'x', 1, 1, '2026-01-01'),
        (2, 'anna', 'sad', 'ab ', 'y ', 1.5, 2, '2026-01-02'),
        (3, 'Otto', 'it''s', '', '', 2, 2147483647, '2026-01-03')
"""
DROP_LEGACY = """
    DROP TABLE in_arrays_legacy; DROP TYPE in_arrays_mood; DROP DOMAIN in_arrays_short
"""

STRINGS = [
    "",
    " ",
    "a",
    "a ",
    "A",
    "NULL",
    "null",
    "a,b",
    "{}",
    '"',
    "\\",
    '\\"',
    "it's",
    "%s",
    "%",
    "ä€😀",
    "\n\t",
]
MOMENTS = [
    datetime.datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    datetime.datetime(2026, 3, 29, 1, 30, 0, 1, tzinfo=UTC),
    datetime.datetime(1, 1, 2, tzinfo=UTC),
    datetime.datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC),
]
STORED: dict[str, Sequence[Any]] = {
    "small": [0, 1, -1, 32767, -32768],
    "count": [0, 1, -1, 2**31 - 1, -(2**31)],
    "big": [0, 1, -1, 3 * 10**9, 2**63 - 1, -(2**63)],
    "name": STRINGS,
    "note": [*STRINGS, "x" * 3000],
    "key": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=7)],
    "day": [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(2024, 2, 29)],
    "at": MOMENTS,
    "price": [Decimal("0"), Decimal("1.50"), Decimal("-1"), Decimal("9999999999.99")],
}
ROWS = sum(map(len, STORED.values()))
# In no row; enough that any list with them is long.
FILL: dict[str, Sequence[Any]] = {
    "small": range(100, 100 + FILLING),
    "count": range(100, 100 + FILLING),
    "big": range(100, 100 + FILLING),
    "name": [f"fill {n}" for n in range(FILLING)],
    "note": [f"fill {n}" for n in range(FILLING)],
    "key": [uuid.UUID(int=100 + n) for n in range(FILLING)],
    "day": [datetime.date(1900, 1, 1 + n) for n in range(FILLING)],
    "at": [datetime.datetime(1900, 1, 1 + n, tzinfo=UTC) for n in range(FILLING)],
    "price": [Decimal(100 + n) for n in range(FILLING)],
}
INTEGERS: list[list[Any]] = [
    [0, 1, None],
    [None],
    [1, 1, True, False],
    ["1", "-1"],
    [2**15, -(2**15)],
    [3 * 10**9],
    [2**31, -(2**31)],
    [2**63 - 1],
    [-(2**63)],
    [2**63],
    [10**30],
    [1.9],
    [Decimal(1)],
    ["x"],
]
TEXTS: list[list[Any]] = [
    *([text] for text in STRINGS),
    STRINGS,
    [None, ""],
    [1, 2.5, True],
    ["a\0b"],
    ["\ud800"],
]
HOSTILE: dict[str, list[list[Any]]] = {
    "small": INTEGERS,
    "count": INTEGERS,
    "big": INTEGERS,
    "name": TEXTS,
    "note": [*TEXTS, ["x" * 3000]],
    "key": [
        [uuid.UUID(int=0), None],
        [str(uuid.UUID(int=7)).upper()],
        [uuid.UUID(int=7).hex],
        [7],
        ["no uuid"],
    ],
    "day": [
        ["2024-02-29"],
        [datetime.datetime(2024, 2, 29, 12, tzinfo=UTC)],
        ["2023-02-29"],
        [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None],
    ],
    "at": [[moment] for moment in MOMENTS]
    + [
        [moment.astimezone(KABUL) for moment in MOMENTS],
        [MOMENTS[0].astimezone(LMT)],
        ["2026-03-29 01:30:00+00:00"],
        ["2026-03-29T03:30:00.000001+02:00", None],
    ],
    "price": [
        [Decimal("1.5")],
        [Decimal("1.500")],
        [Decimal("1E+3"), Decimal("-0")],
        [1.5],
        ["1.5"],
        [1],
        [Decimal("9999999999.990"), None],
        [Decimal("1.504")],
        [Decimal(10) ** 30],
        [Decimal("NaN")],
    ],
}


@pytest.fixture(scope="module", autouse=True)
def tables(server: PostgresServer) -> Iterator[None]:
    """Both tables with their rows, for the tests of this module."""
    # Without an app that has them, no relation is followed backwards.
    app = AppConfig("tests.in_arrays", sys.modules[__name__])
    app.label = "in_arrays"
    apps.set_installed_apps([app])  # type: ignore[list-item]
    making = Databases(server)
    connection = making.add({"prepare": False})
    with connection.schema_editor() as editor:
        editor.create_model(Sample)
    rows = [Sample(**{name: one}) for name, stored in STORED.items() for one in stored]
    first, second, *others = rows
    rows_of(connection).bulk_create(rows)
    for row in others:
        row.parent = first if row.pk % 2 else second
    rows_of(connection).bulk_update(others, ["parent"])
    with connection.cursor() as cursor:
        cursor.execute(MAKE_LEGACY)
    connection.pool.close()  # type: ignore[union-attr]
    connection.close()
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Sample)
    with connection.cursor() as cursor:
        cursor.execute(DROP_LEGACY)
    pool = connection.pool
    connection.close()
    pool.close()  # type: ignore[union-attr]
    making.remove()
    apps.unset_installed_apps()


Pair = tuple[PooledWrapper, PooledWrapper]


@pytest.fixture
def pair(databases: Databases) -> Pair:
    """One alias that writes IN lists, and one that writes arrays."""
    return databases.add({"prepare": False}), with_arrays(databases)


def with_arrays(databases: Databases, alias: str | None = None) -> PooledWrapper:
    # Prepared at once: what is compared here is how PostgreSQL reads the array as a parameter too.
    return databases.add({"prepare": "auto", "prepare_threshold": 0}, alias=alias)


def rows_of(connection: PooledWrapper, model: type[models.Model] = Sample) -> models.QuerySet[Any]:
    return models.QuerySet(model, using=connection.alias).order_by("pk")


def outcome(connection: PooledWrapper, model: type[models.Model], condition: Q) -> object:
    """The keys of the rows that are found, or the class of what is raised."""
    try:
        return list(rows_of(connection, model).filter(condition).values_list("pk", flat=True))
    except Exception as error:
        return type(error)


def text_of(queryset: models.QuerySet[Any]) -> str:
    sql: str = queryset.query.get_compiler(using=queryset.db).as_sql()[0]
    return sql


def assert_equal(pair: Pair, model: type[models.Model], lookup: str, values: Sequence[Any]) -> None:
    """filter() and exclude() find the same rows by a list and by an array, or fail alike."""
    plain, arrays = pair
    for condition in (Q(**{lookup: values}), ~Q(**{lookup: values})):
        expected = outcome(plain, model, condition)
        assert outcome(arrays, model, condition) == expected, (condition, expected)


@pytest.mark.parametrize("name", STORED)
def test_arrays_find_what_lists_find(pair: Pair, name: str) -> None:
    filling = list(FILL[name])
    sample = {f"{name}__in": filling}
    assert " = ANY(%s" in text_of(rows_of(pair[1]).filter(**sample))
    assert " IN (" in text_of(rows_of(pair[0]).filter(**sample))
    for values in [*HOSTILE[name], *([one] for one in STORED[name]), STORED[name]]:
        assert_equal(pair, Sample, f"{name}__in", [*filling, *values])
    assert_equal(pair, Sample, f"{name}__in", [*filling, *STORED[name]] * 3)


def test_arrays_find_what_lists_find_for_lists_by_chance(pair: Pair) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    print("seed", seed)
    for _ in range(100):
        name = chance.choice(list(STORED))
        known = [*FILL[name], *STORED[name], *STORED[name], None]
        values = [chance.choice(known) for _ in range(chance.randrange(30))]
        assert_equal(pair, Sample, f"{name}__in", values)


def test_what_is_stored_is_found_at_all(pair: Pair) -> None:
    for name, stored in STORED.items():
        found = rows_of(pair[1]).filter(**{f"{name}__in": [*FILL[name], *stored]})
        assert len(found) == len(stored), name


@pytest.mark.parametrize(
    ("name", "values", "keys"),
    [
        ("folded", ["ANNA"], [1, 2]),
        ("mood", ["glad", "it's"], [1, 3]),
        ("padded", ["ab"], [1, 2]),
        ("padded", ["ab   ", ""], [1, 2, 3]),
        ("short", ["y ", "x"], [1, 2]),
        ("short", ["y"], []),
        ("amount", [1, 2], [1, 3]),
        ("number", [1, 2**31 - 1, 2**31], [1, 3]),
        ("moment", [datetime.datetime(2026, 1, 2, tzinfo=UTC)], [2]),
    ],
)
def test_the_columns_own_type_decides_what_equal_means(
    pair: Pair, name: str, values: list[Any], keys: list[int]
) -> None:
    """As with an IN list: a declared text[] would compare citext with case."""
    filling: Sequence[Any] = {
        "mood": [f"m{n}" for n in range(FILLING)],
        "amount": FILL["count"],
        "number": FILL["count"],
        "moment": FILL["at"],
    }.get(name, FILL["name"])
    condition = Q(**{f"{name}__in": [*filling, *values]})
    assert outcome(pair[0], Legacy, condition) == keys
    assert outcome(pair[1], Legacy, condition) == keys
    assert_equal(pair, Legacy, f"{name}__in", [*filling, *values])


def test_an_enum_refuses_what_is_no_label_of_it(pair: Pair) -> None:
    condition = Q(mood__in=FILL["name"])
    for connection in pair:
        assert outcome(connection, Legacy, condition) is DataError


def sent(connection: PooledWrapper, work: Callable[[], object]) -> list[str]:
    """The statements that *work* executes, as connection.queries shows them."""
    with CaptureQueriesContext(connection) as queries:
        work()
    return [query["sql"] for query in queries]


def test_prefetches_write_arrays(pair: Pair) -> None:
    def read(connection: PooledWrapper) -> list[tuple[int, int | None, list[int]]]:
        rows = rows_of(connection).prefetch_related("children", "parent")
        return [
            (row.pk, row.parent and row.parent.pk, [c.pk for c in row.children.all()])
            for row in rows
        ]

    assert read(pair[1]) == read(pair[0])
    [_, children, _] = sent(pair[1], lambda: read(pair[1]))
    assert re.search(r'"parent_id" = ANY\(\'\{1,2,[0-9,]*\}\'::int8\[\]\)', children)


def test_in_bulk_writes_arrays(pair: Pair) -> None:
    keys = range(1, 30)
    assert rows_of(pair[1]).in_bulk(keys) == rows_of(pair[0]).in_bulk(keys)
    [sql] = sent(pair[1], lambda: rows_of(pair[1]).in_bulk(keys))
    assert " = ANY('{1,2,3," in sql


def test_bulk_update_and_update_write_arrays(pair: Pair) -> None:
    arrays = pair[1]
    rows = list(rows_of(arrays)[:20])
    before = [row.count for row in rows]
    for row in rows:
        row.count = row.pk
    with transaction.atomic(arrays.alias):
        [bulk] = sent(arrays, lambda: rows_of(arrays).bulk_update(rows, ["count"]))
        assert " = ANY('{1,2,3," in bulk
        keys = [row.pk for row in rows]
        assert rows_of(arrays).filter(pk__in=keys).update(count=F("count") + 1) == 20
        assert [row.count for row in rows_of(arrays)[:20]] == [key + 1 for key in keys]
        transaction.set_rollback(True, arrays.alias)
    assert [row.count for row in rows_of(arrays)[:20]] == before


def test_deleting_collects_and_deletes_by_arrays(pair: Pair) -> None:
    arrays = pair[1]
    created = rows_of(arrays).bulk_create([Sample(name="top") for _ in range(20)])
    rows_of(arrays).bulk_create([Sample(name="below", parent=row) for row in created])
    statements = sent(arrays, lambda: rows_of(arrays).filter(name="top").delete())
    deletes = [sql for sql in statements if sql.startswith("DELETE")]
    assert len(deletes) == 1
    assert "ANY('{" in deletes[0]
    assert not rows_of(arrays).filter(name__in=["top", "below"]).exists()


def test_conditions_around_and_beside_it_hold(pair: Pair) -> None:
    keys = list(range(1, 20))
    inner = Sample._default_manager.filter(pk__in=keys).values("pk")
    for condition in (
        Q(pk__in=keys) | Q(name__in=FILL["name"]),
        Q(pk__in=keys) & ~Q(count__in=FILL["count"]),
        ~(Q(pk__in=keys) | Q(parent__in=keys)),
        Q(parent__pk__in=keys),
        Q(parent__name__in=FILL["name"]),
        ~Q(children__pk__in=keys),
        Q(parent__in=inner),
        Q(pk__in=[*keys, F("count")]),
    ):
        expected = outcome(pair[0], Sample, condition)
        assert isinstance(expected, list)
        assert outcome(pair[1], Sample, condition) == expected


def test_it_may_stand_wherever_a_condition_may(pair: Pair) -> None:
    many = Q(pk__in=range(1, 20))
    children = Sample._default_manager.filter(many, parent=OuterRef("pk"))
    shapes: list[Callable[[models.QuerySet[Any]], models.QuerySet[Any]]] = [
        lambda rows: rows.annotate(x=ExpressionWrapper(many, models.BooleanField())),
        lambda rows: rows.annotate(x=Case(When(many, then=Value(1)), default=Value(2))),
        lambda rows: rows.annotate(x=Exists(children)).filter(x=True),
        lambda rows: rows.annotate(x=Count("children", filter=Q(children__pk__in=range(20)))),
        lambda rows: rows.alias(c=FilteredRelation("children", condition=many)).filter(c__gt=5),
        lambda rows: rows.values("parent").annotate(x=Count("pk")).filter(parent__in=range(20)),
        lambda rows: rows.filter(many).union(rows.filter(name__in=FILL["name"])).order_by("pk"),
        lambda rows: rows.filter(many)[2:5],
        lambda rows: rows.exclude(children__in=range(20)),
    ]
    for shape in shapes:
        expected, found = (list(shape(rows_of(c)).values()) for c in pair)
        assert found == expected
        assert " = ANY(" in text_of(shape(rows_of(pair[1])))
    totals = [rows_of(c).aggregate(x=Count("pk", filter=many)) for c in pair]
    assert totals == [{"x": 19}] * 2


PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%in_arrays_sample%%'"


def test_lists_of_any_length_keep_few_statements_prepared(pair: Pair) -> None:
    arrays = pair[1]
    lengths = list(range(1, 151)) * 2
    random.Random(1).shuffle(lengths)
    for length in lengths:
        assert len(rows_of(arrays).filter(pk__in=range(1, length + 1))) == min(length, ROWS)
    with arrays.cursor() as cursor:
        cursor.execute(PREPARED, ())
        assert cursor.fetchone() == (SHORTEST,)


def test_an_empty_list_asks_no_server(pair: Pair) -> None:
    assert sent(pair[1], lambda: list(rows_of(pair[1]).filter(pk__in=[]))) == []
    assert sent(pair[1], lambda: list(rows_of(pair[1]).filter(pk__in=[None] * 20))) == []
    with pytest.raises(EmptyResultSet):
        str(rows_of(pair[1]).filter(pk__in=[]).query)


def test_the_plan_uses_the_index_as_for_a_list(pair: Pair) -> None:
    with pair[0].cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    with pair[1].cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    for condition in ({"pk__in": range(20)}, {"parent__in": range(20)}):
        plain, arrays = (
            rows_of(connection).filter(**condition).order_by().explain() for connection in pair
        )
        assert "Index Cond: " in arrays
        assert without_costs(arrays) == without_costs(plain)


def without_costs(plan: str) -> str:
    return re.sub(r"\(cost=[^)]*\)|::(bigint|integer)\[\]", "", plan)


def test_the_query_as_text_can_be_executed(databases: Databases) -> None:
    """As stock's can, if the list holds numbers. Django compiles it for the default alias."""
    arrays = with_arrays(databases, "default")
    for condition in ({"pk__in": range(20)}, {"name__in": STRINGS}):
        rows = rows_of(arrays).filter(**condition).values_list("pk")
        with arrays.cursor() as cursor:
            cursor.execute(str(rows.query))
            assert cursor.fetchall() == list(rows)


def test_a_null_character_is_refused_as_in_a_list(pair: Pair) -> None:
    for connection in pair:
        with pytest.raises((ValueError, DataError)):
            list(rows_of(connection).filter(name__in=[*FILL["name"], "a\0b"]))


def test_the_schema_keeps_its_lists(pair: Pair) -> None:
    """A constraint's text must not depend on an option: migrations would differ by machine."""

    class Meta:
        app_label = "in_arrays"
        constraints = [models.CheckConstraint(condition=Q(n__in=range(20)), name="few")]  # noqa: RUF012
        indexes = [models.Index(fields=["n"], condition=Q(n__in=range(20)), name="some")]  # noqa: RUF012

    constrained = type(
        "Constrained",
        (models.Model,),
        {"__module__": __name__, "Meta": Meta, "n": models.IntegerField()},
    )
    made = []
    for connection in pair:
        with connection.schema_editor(collect_sql=True) as editor:
            editor.create_model(constrained)
        made.append(editor.collected_sql)
    assert made[0] == made[1]
    assert "ANY" not in "".join(made[1])


def test_other_aliases_keep_their_lists(pair: Pair, databases: Databases) -> None:
    """Compilers are chosen by the alias that a query runs on, in one process."""
    rows = Sample._default_manager.filter(pk__in=range(20))
    arrays = text_of(rows.using(pair[1].alias))
    assert " = ANY(" in arrays
    assert " IN (" in text_of(rows.using(pair[0].alias))
    stock = databases.add(ENGINE="django.db.backends.postgresql")
    assert " IN (" in text_of(rows.using(stock.alias))
    assert connections[stock.alias] is stock
