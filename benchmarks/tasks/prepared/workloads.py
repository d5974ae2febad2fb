"""The statements: each through the ORM, and as the SQL that the ORM makes of it."""

import datetime
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, models
from django.db.models import Count, Sum

from benchmarks.tasks.prepared.models import Entry, Job, Order, Person

PEOPLE, ORDERS = 20_000, 50_000
MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
COMPANY = "person__department__company"
SEVEN = ("person__city__country", f"{COMPANY}__city__country")
FOUR = ("pk", "person__name", "person__department__name", f"{COMPANY}__name",
        f"{COMPANY}__city__name")  # fmt: skip

Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class Workload:
    """One shape of statement; both are given a number, and differ by it in their parameters.

    orm        carries it out, objects and all
    statement  what it sends, without carrying it out
    """

    orm: Callable[[int], object]
    statement: Callable[[int], Statement]


def _reads(make: Callable[[int], models.QuerySet[Any]]) -> Workload:
    return Workload(lambda number: list(make(number)), lambda number: _compiled(make(number)))


def _compiled(queryset: models.QuerySet[Any]) -> Statement:
    sql, params = queryset.query.get_compiler(using=DEFAULT_DB_ALIAS).as_sql()
    return sql, tuple(params)


def _key(number: int, count: int) -> int:
    """A key from 1 to *count*, spread over all of them, the same for all peers."""
    return number * 7919 % count + 1


def _by_pk(number: int) -> models.QuerySet[Any]:
    return Person._default_manager.filter(pk=_key(number, PEOPLE))


def _two_joins(number: int) -> models.QuerySet[Any]:
    return _by_pk(number).select_related("department__company")


def _orders(number: int) -> models.QuerySet[Any]:
    return Order._default_manager.filter(person=_key(number, PEOPLE))


def _seven_joins(number: int) -> models.QuerySet[Any]:
    return _orders(number).select_related(*SEVEN)


def _four_joins(number: int) -> models.QuerySet[Any]:
    where = {f"{COMPANY}__city__population__gte": 1}
    return _orders(number).filter(**where).values_list(*FOUR)


def _totals(number: int) -> models.QuerySet[Any]:
    """Grouped, so that the whole of it is a queryset that can be compiled."""
    by_city = _orders(number).values(f"{COMPANY}__city__name")
    totals: models.QuerySet[Any] = by_city.annotate(total=Sum("amount"), orders=Count("pk"))
    return totals


def _in_list(number: int) -> models.QuerySet[Any]:
    chance = random.Random(number)
    keys = chance.sample(range(1, PEOPLE + 1), chance.randint(1, 150))
    return Person._default_manager.filter(pk__in=keys).select_related("department__company")


def _rows(number: int) -> models.QuerySet[Any]:
    first = _key(number, ORDERS - 500)
    return Order._default_manager.filter(pk__range=(first, first + 499))


def _update(number: int) -> object:
    return _by_pk(number).update(score=number)


def _update_statement(number: int) -> Statement:
    sql = 'UPDATE "bench_person" SET "score" = %s WHERE "bench_person"."id" = %s'
    return sql, (number, _key(number, PEOPLE))


def _insert(number: int) -> object:
    return Entry._default_manager.create(name="entry", number=number, at=MOMENT)


def _insert_statement(number: int) -> Statement:
    sql = ('INSERT INTO "bench_entry" ("name", "number", "at") VALUES (%s, %s, %s)'
           ' RETURNING "bench_entry"."id"')  # fmt: skip
    return sql, ("entry", number, MOMENT)


WORKLOADS = {
    "get by pk": _reads(_by_pk),
    "2 joins": _reads(_two_joins),
    "7 joins": _reads(_seven_joins),
    "4 joins, values_list": _reads(_four_joins),
    "aggregate over 4 joins": _reads(_totals),
    "IN list of 1 to 150": _reads(_in_list),
    "update": Workload(_update, _update_statement),
    "insert": Workload(_insert, _insert_statement),
    "500 rows": _reads(_rows),
}


def skewed(status: str) -> object:
    """The next ten jobs of that status."""
    return list(Job._default_manager.filter(status=status).order_by("pk")[:10])
