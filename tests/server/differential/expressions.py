"""Statements with values, operators, functions, conditions, aggregates and windows."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.postgres.aggregates import (
    ArrayAgg,
    BoolOr,
    Corr,
    JSONBAgg,
    RegrSlope,
)
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.fields import ArrayField, IntegerRangeField
from django.db.backends.postgresql.psycopg_any import NumericRange
from django.db.models import (
    Avg,
    BigIntegerField,
    BooleanField,
    Case,
    CharField,
    Count,
    DateField,
    DateTimeField,
    DecimalField,
    DurationField,
    Expression,
    ExpressionWrapper,
    F,
    FloatField,
    Func,
    IntegerField,
    JSONField,
    Max,
    Min,
    OuterRef,
    Q,
    RowRange,
    StdDev,
    Sum,
    TextField,
    Value,
    Variance,
    When,
    Window,
)
from django.db.models.functions import (
    MD5,
    Abs,
    Cast,
    Ceil,
    Chr,
    Coalesce,
    Collate,
    Concat,
    Cos,
    DenseRank,
    ExtractYear,
    FirstValue,
    Greatest,
    JSONObject,
    Lag,
    LastValue,
    Lead,
    Least,
    Left,
    Length,
    Log,
    Lower,
    LPad,
    Mod,
    NthValue,
    Ntile,
    NullIf,
    Ord,
    Power,
    Rank,
    Repeat,
    Replace,
    Reverse,
    Right,
    Round,
    RowNumber,
    Sqrt,
    StrIndex,
    Substr,
    Trim,
    TruncDate,
    TruncHour,
    TruncYear,
    Upper,
)

from tests.server.differential.comparison import Statement
from tests.server.differential.models import Author, Book, Everything


def column(expression: Any) -> Statement:
    """The expression as a column of some books."""
    return lambda db: (
        db(Book).filter(pages__gt=0).annotate(x=expression).order_by("pk").values_list("pk", "x")
    )


def total(**aggregates: Any) -> Statement:
    return lambda db: db(Book).filter(pk__gt=0).aggregate(**aggregates)


def everywhere(expression: Any) -> Statement:
    """In the columns, in WHERE and in ORDER BY."""
    return lambda db: (
        db(Book)
        .annotate(x=expression)
        .filter(x__isnull=False)
        .exclude(x=expression)
        .union(db(Book).annotate(x=expression).filter(x=expression))
        .order_by("id")
        .values_list("id", "x")
    )


VALUES: dict[str, Any] = {
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "beyond smallint": 2**15,
    "beyond integer": 2**31,
    "the least integer": -(2**31),
    "2**40": 2**40,
    "the last big integer": 2**63 - 1,
    "the first big integer": -(2**63),
    "beyond bigint": 2**63,
    "a huge integer": 10**40,
    "a float": 1.5,
    "a float that is whole": 2.0,
    "a tiny float": 5e-324,
    "a great float": 1.7976931348623157e308,
    "inf": float("inf"),
    "-inf": float("-inf"),
    "nan": float("nan"),
    "a decimal": Decimal("1.50"),
    "a tiny decimal": Decimal("1E-30"),
    "a great decimal": Decimal("1E+30"),
    "text": "x",
    "text with quotes": "a'b\"c\\d%s%%$1{}?",
    "empty text": "",
    "text like a number": "12",
    "text like a date": "2024-02-29",
    "text with newlines": "a\nb\tc",
    "text beyond ASCII": "é漢🙂",
    "bytes": b"\x00'\\\xff",
    "a date": date(2024, 2, 29),
    "a time": time(1, 2, 3, 4),
    "a moment": datetime(2024, 2, 29, 1, tzinfo=UTC),
    "a duration": timedelta(days=-3, microseconds=5),
    "a uuid": uuid.UUID(int=5),
}
TYPED: dict[str, tuple[Any, Any]] = {
    "null integer": (None, IntegerField()),
    "null text": (None, TextField()),
    "null moment": (None, DateTimeField()),
    "integer as float": (3, FloatField()),
    "integer as decimal": (3, DecimalField(max_digits=5, decimal_places=2)),
    "integer as text": ("3", TextField()),
    "float as decimal": (1.25, DecimalField(max_digits=5, decimal_places=2)),
    "text as date": ("2024-02-29", DateField()),
    "a list of integers": ([1, 2**40], ArrayField(BigIntegerField())),
    "a list of texts": (["a", "b'c", ""], ArrayField(TextField())),
    "a range": (NumericRange(1, 5), IntegerRangeField()),
    "json object": ({"a": [1, None, "x"], "b": 1.5}, JSONField()),
    "json list": ([1, "a"], JSONField()),
    "json text": ("x", JSONField()),
    "json null": (None, JSONField()),
    "json number": (5, JSONField()),
}

OPERATORS: dict[str, Any] = {
    "integer plus 1": F("pages") + 1,
    "integer minus a great one": F("pages") - 2**40,
    "integer times 1.5": F("pages") * 1.5,
    "integer times a decimal": ExpressionWrapper(F("pages") * Decimal("1.5"), DecimalField()),
    "integer divided": F("pages") / 7,
    "integer divided by a whole decimal": ExpressionWrapper(
        F("pages") / Value(Decimal(2)), DecimalField()
    ),
    "integer modulo": F("pages") % 7,
    "integer to a power": F("pages") ** 2,
    "bits": F("pages").bitand(255).bitor(1024).bitxor(3),
    "shifts": F("pages").bitleftshift(2).bitrightshift(1),
    "minus": -F("pages"),
    "decimal plus a decimal": F("price") + Decimal("0.005"),
    "decimal times an integer": F("price") * 3,
    "decimal divided": ExpressionWrapper(F("price") / 3, DecimalField()),
    "float plus an integer": F("rating") + 1,
    "float times a float": F("rating") * 2.5,
    "date plus a duration": ExpressionWrapper(
        F("published") + timedelta(days=1, hours=3), DateTimeField()
    ),
    "date minus a date": ExpressionWrapper(
        F("published") - Value(date(2000, 1, 1)), DurationField()
    ),
    "value minus a column": 1000 - F("pages"),
    "value between columns": ExpressionWrapper(
        F("pages") + Value(2) * F("pages") - Value(3), IntegerField()
    ),
    "comparison as a column": ExpressionWrapper(Q(pages__gt=200), BooleanField()),
    "not as a column": ~Q(pages__gt=200),
}

CONDITIONS: dict[str, Any] = {
    "case of integers": Case(When(pages__gt=300, then=3), When(pages__gt=200, then=2), default=1),
    "case of texts": Case(When(pages__gt=300, then=Value("long")), default=Value("short")),
    "case of text and column": Case(When(title="Book 2.0", then=Value("!")), default=F("title")),
    "case without default": Case(When(pages__gt=300, then=Value(1))),
    "case of decimals": Case(
        When(pages__gt=300, then=Value(Decimal("1.5"))),
        default=F("price"),
        output_field=DecimalField(),
    ),
    "case of dates": Case(
        When(pages__gt=300, then=Value(date(2024, 1, 1))), default=F("published")
    ),
    "case of booleans": Case(When(pages__gt=300, then=Value(True)), default=Value(False)),
    "case of floats": Case(When(pages__gt=300, then=Value(1.5)), default=F("rating")),
    "case of great integers": Case(
        When(pages__gt=300, then=Value(2**40)), default=0, output_field=BigIntegerField()
    ),
    "case in a case": Case(
        When(Q(pages__gt=100) & ~Q(title="x"), then=Case(When(pages__lt=300, then=1), default=2)),
        default=Value(None, output_field=IntegerField()),
    ),
    "coalesce integers": Coalesce("pages", Value(0)),
    "coalesce floats": Coalesce("rating", Value(0.0)),
    "coalesce decimals": Coalesce("price", Value(Decimal("0"))),
    "coalesce texts": Coalesce(NullIf("title", Value("Book 2.0")), Value("none")),
    "coalesce values": Coalesce(Value(None, output_field=IntegerField()), Value(5)),
    "nullif": NullIf("pages", Value(201)),
    "greatest": Greatest("pages", Value(250)),
    "greatest of dates": Greatest("published", Value(date(2003, 1, 1))),
    "least of decimals": Least("price", Value(Decimal("7.1")), output_field=DecimalField()),
}

FUNCTIONS: dict[str, Any] = {
    "concat": Concat("title", Value(" by "), "author__name"),
    "concat a number": Concat("title", Value("-"), "pages", output_field=CharField()),
    "concat values": Concat(Value("a"), Value("b"), Value("c")),
    "substr": Substr("title", 6, 3),
    "substr of a value": Substr(Value("abcdef"), 2, 3),
    "left": Left("title", 4),
    "right": Right("title", 3),
    "lpad": LPad("title", 12, Value("*")),
    "repeat": Repeat("title", 2),
    "replace": Replace("title", Value("Book"), Value("B'k")),
    "strindex": StrIndex("title", Value(".")),
    "length of a value": Length(Value("abc")),
    "upper of a value": Upper(Value("abc")),
    "lower": Lower("title"),
    "trim": Trim(Value("  x ")),
    "reverse": Reverse("title"),
    "chr": Chr(Value(65)),
    "ord": Ord(Value("A")),
    "md5": MD5("title"),
    "collate": Collate("title", "C"),
    "abs of a value": Abs(Value(-5)),
    "abs": Abs(F("pages") - 250),
    "ceil": Ceil("rating"),
    "cos": Cos("rating"),
    "log": Log(Value(2), "pages"),
    "mod": Mod("pages", 7),
    "power": Power("pages", 2),
    "power of a half": Power("pages", 0.5),
    "round": Round("price", 1),
    "round a value": Round(Value(Decimal("2.345")), precision=2),
    "sqrt": Sqrt("pages"),
    "cast to text": Cast("pages", TextField()),
    "cast a value to integer": Cast(Value("12"), IntegerField()),
    "cast a value to float": Cast(Value(1), FloatField()),
    "cast a value to decimal": Cast(Value("1.5"), DecimalField(max_digits=5, decimal_places=2)),
    "cast to varchar": Cast(Value("abcdef"), CharField(max_length=3)),
    "cast to date": Cast(Value("2024-02-29"), DateField()),
    "cast to json": Cast(Value('{"a": 1}'), JSONField()),
    "cast an integer to bigint": Cast(Value(5), BigIntegerField()),
    "year": ExtractYear("published"),
    "trunc year": TruncYear("published"),
    "trunc a value": TruncHour(Value(datetime(2024, 2, 29, 12, 34, tzinfo=UTC))),
    "trunc to a date": TruncDate(Value(datetime(2024, 2, 29, 12, 34, tzinfo=UTC))),
    "json object": JSONObject(title="title", n=Value(1), t=Value("x'y"), f=Value(1.5)),
    "json object of objects": JSONObject(o=JSONObject(p="pages"), none=Value(None)),
    "func": Func(Value("abc"), Value("b"), function="strpos", output_field=IntegerField()),
    "func polymorphic": Func(Value("k"), Value(1), function="jsonb_build_object",
                             output_field=JSONField()),
    "func of an array": Func(Value([1, 2]), function="cardinality", output_field=IntegerField()),
    "func with a template": Func(
        F("pages"), function="to_char", template="%(function)s(%(expressions)s, 'FM0000%%%%')",
        output_field=TextField(),
    ),
    "pg_typeof": Func(Value(5), function="pg_typeof", template="pg_typeof(%(expressions)s)::text",
                      output_field=TextField()),
    "pg_typeof text": Func(Value("x"), function="pg_typeof",
                           template="pg_typeof(%(expressions)s)::text", output_field=TextField()),
    "pg_typeof date": Func(Value(date(2024, 1, 1)), function="pg_typeof",
                           template="pg_typeof(%(expressions)s)::text", output_field=TextField()),
    "pg_typeof float": Func(Value(1.5), function="pg_typeof",
                            template="pg_typeof(%(expressions)s)::text", output_field=TextField()),
}  # fmt: skip


def over(expression: Any, **how: Any) -> Window:
    return Window(
        expression,
        partition_by=how.get("by", [F("author")]),
        order_by=[F("pages").asc(nulls_last=True), "id"],
        frame=how.get("frame"),
    )


WINDOWS: dict[str, Expression] = {
    "row_number": over(RowNumber()),
    "rank": over(Rank(), by=[F("pages") % 3]),
    "dense_rank": over(DenseRank()),
    "ntile": over(Ntile(3), by=None),
    "lag": over(Lag("pages", offset=2, default=-1)),
    "lead": over(Lead("title", default=Value("none"))),
    "first_value": over(FirstValue("title")),
    "last_value": over(LastValue(F("pages") + 1)),
    "nth_value": over(NthValue("pages", nth=2)),
    "sum over": over(Sum(F("pages") * 2)),
    "average over rows": over(Avg("pages"), frame=RowRange(start=-1, end=1)),
    "count with a filter over": over(Count("pk", filter=Q(pages__gt=200))),
}

AGGREGATES: dict[str, Statement] = {
    "count": total(n=Count("pk"), d=Count("author", distinct=True), p=Count("pages")),
    "count with a filter": total(n=Count("pk", filter=Q(pages__gt=200))),
    "sum": total(n=Sum("pages"), d=Sum("price"), f=Sum("rating")),
    "sum of an expression": total(n=Sum(F("pages") * 2 + 1), d=Sum(F("price") * Decimal("1.1"))),
    "sum with a default": total(n=Sum("pages", filter=Q(pages__gt=9999), default=0)),
    "sum of a value": total(n=Sum(Value(2)), f=Sum(Value(1.5))),
    "sum of a case": total(n=Sum(Case(When(pages__gt=200, then=1), default=0))),
    "average, least, greatest": total(a=Avg("pages"), d=Avg("price"), i=Min("title"), x=Max("pk")),
    "deviation": total(s=StdDev("pages"), v=Variance("price", sample=True)),
    "with arithmetic": total(n=Max("pages") - Min("pages") + 5, r=Sum("price") / Count("pk")),
    "array_agg": total(n=ArrayAgg("title", filter=Q(pages__gt=300), order_by=("-title",))),
    "array_agg with a default": total(n=ArrayAgg("pages", filter=Q(pages__gt=9999), default=[1])),
    "jsonb_agg": total(n=JSONBAgg("pages", order_by="pk")),
    "booleans": total(b=BoolOr(ExpressionWrapper(Q(pages__gt=500), BooleanField()))),
    "correlation": total(c=Corr(y="pages", x="rating"), s=RegrSlope(y="pages", x="price")),
    "over a slice": lambda db: db(Book).filter(pk__gt=2).order_by("pk")[:5].aggregate(
        n=Sum("pages"), c=Count("pk")
    ),
    "over distinct rows": lambda db: (
        db(Book).filter(pk__gt=2).values("author").distinct().aggregate(n=Count("*"))
    ),
    "group by": lambda db: (
        db(Book).filter(pages__gt=1).values("author__name").annotate(n=Count("pk"), s=Sum("pages"))
        .order_by("author__name")
    ),
    "group by with having": lambda db: (
        db(Author).annotate(n=Count("books"), s=Sum("books__price"))
        .filter(n__gte=2, s__gt=Decimal(9)).order_by("pk").values_list("name", "n", "s")
    ),
    "group by an expression with a value": lambda db: (
        db(Book).annotate(k=F("pages") % 3).values("k").annotate(n=Count("pk")).order_by("k")
    ),
    "group by a case": lambda db: (
        db(Book).annotate(k=Case(When(pages__gt=200, then=Value("l")), default=Value("s")))
        .values("k").annotate(n=Count("pk")).order_by("k")
    ),
    "group by a function of values": lambda db: (
        db(Book).annotate(k=Concat(Left("title", 6), Value("-"))).values("k")
        .annotate(n=Count("pk")).order_by("k")
    ),
    "aggregate of an annotation": lambda db: (
        db(Author).annotate(n=Count("books", filter=Q(books__pages__gt=1))).aggregate(Avg("n"))
    ),
    "filtered by a window": lambda db: (
        db(Book).annotate(r=over(RowNumber())).filter(r__lte=2).order_by("pk").values_list("pk")
    ),
    "ordered by a window": lambda db: (
        db(Book).filter(pages__gt=5).order_by(over(RowNumber()), "pk").values_list("pk")
    ),
    "array of a subquery": lambda db: (
        db(Author).annotate(t=ArraySubquery(db(Book).filter(author=OuterRef("pk"), pages__gt=5)
                            .order_by("pk").values("title"))).order_by("pk").values_list("t")
    ),
    "distinct and ordered by an expression with a value": lambda db: (
        db(Book).filter(pages__gt=1).annotate(k=F("pages") % 3).values("k").distinct()
        .order_by(F("pages") % 3)
    ),
    "union of different values": lambda db: (
        db(Book).filter(pk=1).annotate(k=Value("a")).values_list("k", "pages")
        .union(db(Book).filter(pk=2).annotate(k=Value("b")).values_list("k", "pages"))
        .order_by("k")
    ),
    "exists with values": lambda db: db(Everything).filter(json__a__isnull=False).exists(),
    "alias": lambda db: (
        db(Book).alias(k=F("pages") * 2).filter(k__gt=400).order_by("-k", "pk").values_list("pk")
    ),
    "two annotations of the same value": lambda db: (
        db(Book).filter(pk=1).annotate(a=Value(1), b=Value("1"), c=Value(1.0)).values("a", "b", "c")
    ),
}  # fmt: skip

STATEMENTS: dict[str, Statement] = {
    **{f"Value() of {name}": column(Value(v)) for name, v in VALUES.items()},
    **{f"Value() of {name}": column(Value(v, output_field=f)) for name, (v, f) in TYPED.items()},
    **{name: column(x) for name, x in {**OPERATORS, **CONDITIONS, **FUNCTIONS}.items()},
    **{name: column(x) for name, x in WINDOWS.items()},
    **{f"{name}, also compared": everywhere(x) for name, x in CONDITIONS.items()},
    **AGGREGATES,
}
