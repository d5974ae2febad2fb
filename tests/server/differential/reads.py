"""Statements with lookups, transforms, joins, ordering and slices."""

from datetime import UTC, date, datetime
from decimal import Decimal

from django.contrib.postgres.search import (
    SearchHeadline,
    SearchQuery,
    SearchRank,
    SearchVector,
    TrigramSimilarity,
)
from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateRange, NumericRange
from django.db.models import (
    CharField,
    Count,
    Exists,
    F,
    FilteredRelation,
    IntegerField,
    Max,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
    Value,
)
from django.db.models.fields.json import KT
from django.db.models.functions import ExtractIsoWeekDay, Length, Lower, TruncMonth

from tests.server.differential.comparison import Statement
from tests.server.differential.models import Author, Book, Country, Everything, Tag


def ids(*args: object, **lookups: object) -> Statement:
    """The rows of Everything that match."""
    return lambda db: (
        db(Everything).filter(*args, **lookups).order_by("id").values_list("id", flat=True)
    )


def books(*args: object, **lookups: object) -> Statement:
    """The books that match, with what they join."""
    return lambda db: db(Book).filter(*args, **lookups).order_by("id").select_related("author")


LOOKUPS: dict[str, Statement] = {
    "iexact": ids(char__iexact="PLAIN"),
    "contains": ids(char__contains="100%"),
    "contains a backslash": ids(char__contains="\\"),
    "icontains": ids(text__icontains="NÏC"),
    "startswith": ids(char__startswith="O'"),
    "istartswith": ids(char__istartswith="o'n"),
    "endswith": ids(char__endswith="{x}"),
    "iendswith": ids(text__iendswith="LINES"),
    "contains a column": ids(text__contains=F("char")),
    "startswith of a function": ids(char__startswith=Lower("char")),
    "regex": ids(char__regex=r"^pl.in$"),
    "iregex": ids(char__iregex=r"^PL(A|B)IN"),
    "range of integers": ids(integer__range=(0, 100_000)),
    "range of dates": ids(date__range=(date(2024, 1, 1), date(2024, 12, 31))),
    "range of decimals": ids(decimal__range=(Decimal("-1"), Decimal("12.50"))),
    "integer beyond its type": ids(integer__lt=2**40),
    "small beyond its type": ids(small=2**20),
    "big beyond its type": ids(big__lt=2**70),
    "integer in a list beyond its type": ids(integer__in=[70_000, 2**40]),
    "decimal by integer": ids(decimal__gt=12),
    "decimal by float": ids(decimal__gt=0.5),
    "float by integer": ids(real__gt=1),
    "float by decimal": ids(real__lt=Decimal("1.5000001")),
    "integer by text": ids(integer="70000"),
    "null in a list": ids(integer__in=[70_000, None]),
    "empty list": ids(integer__in=[]),
    "list of one": ids(integer__in=[70_000]),
    "list of 50": ids(integer__in=list(range(69_970, 70_020))),
    "list of 50 texts": ids(char__in=[f"plain{n}" for n in range(49)] + ["plain"]),
    "list of columns and values": ids(integer__in=[F("big"), 70_000]),
    "exact null": ids(char=None),
    "not": ids(~Q(char="plain")),
    "or": ids(Q(integer=70_000) | Q(boolean=False) | Q(small__lt=0)),
    "xor": ids(Q(integer=70_000) ^ Q(char="plain")),
    "boolean column alone": ids(Q(boolean=True)),
    "a true Value": ids(Value(True)),
    "year": ids(date__year=2024),
    "year of a moment": ids(moment__year__gte=2024),
    "iso_year": ids(date__iso_year=2024),
    "month, day, week": ids(date__month=2, date__day=29, date__week=9),
    "quarter": ids(date__quarter=1),
    "week_day": ids(date__week_day=5),
    "iso_week_day": ids(date__iso_week_day__in=[4, 6]),
    "hour, minute, second": ids(time__hour=12, time__minute=30, time__second=0),
    "date of a moment": ids(moment__date=date(2024, 2, 29)),
    "time of a moment": ids(moment__time="12:30"),
    "unaccent": ids(text__unaccent="Unicode"),
    "unaccent icontains": ids(text__unaccent__icontains="UNI"),
    "trigram_similar": ids(char__trigram_similar="plane"),
    "trigram_word_similar": ids(text__trigram_word_similar="line"),
    "search": ids(text__search="lines"),
    "citext without case": ids(citext="mixedcase"),
    "citext in": ids(citext__in=["mixedcase", "x"]),
    "citext contains": ids(citext__contains="XED"),
    "binary": ids(binary=b"\x00\x01'\\"),
    "binary by memoryview": ids(binary=memoryview(bytes(range(256)))),
    "uuid by text": ids(uuid="00000000-0000-0000-0000-000000000001"),
    "uuid contains": ids(uuid__contains="ffff"),
    "address by text": ids(address="192.168.0.1"),
    "address startswith": ids(address__startswith="192.168"),
    "json key": ids(json__a__isnull=False),
    "json path": ids(json__b__c=True),
    "json index": ids(json__a__1=2.5),
    "json index of a list": ids(json__0="a"),
    "json null": ids(json__a=None),
    "json contains": ids(json__contains={"b": {"c": True}}),
    "json contained_by": ids(json__contained_by=["a", 1, {"b": None}, 5]),
    "json has_key": ids(json__has_key="a"),
    "json has_keys": ids(json__has_keys=["a", "b"]),
    "json has_any_keys": ids(json__has_any_keys=["zz", "n"]),
    "json key with a percent": ids(**{"json__k%": "é"}),
    "json key in": ids(json__b__c__in=[True, False]),
    "json key icontains": ids(json__a__3__icontains="X'Y"),
    "json key number": ids(json__n__gt=1),
    "json by a text of its own": ids(json="only a string"),
    "array contains": ids(integers__contains=[1, 2]),
    "array contained_by": ids(integers__contained_by=[1, 2, 3, 4]),
    "array overlap": ids(texts__overlap=["a", "zz"]),
    "array overlaps a subquery": lambda db: (
        db(Everything)
        .filter(texts__overlap=db(Everything).filter(small=7).values_list("texts"))
        .order_by("id")
        .values("id")
    ),
    "array len": ids(integers__len=3),
    "array index": ids(integers__0=1),
    "array slice": ids(integers__0_2=[1, 2]),
    "array of arrays": ids(grid__0__1=2),
    "array contains an empty one": ids(texts__contains=[]),
    "array with null": ids(integers__contains=[2**31 - 1]),
    "array of dates contains": ids(dates__contains=[date(2024, 2, 29)]),
    "array of decimals overlaps": ids(decimals__overlap=[Decimal("1.5"), Decimal("7")]),
    "array any of": ids(integers__1__in=[2, 5]),
    "hstore key": ids(hstore__a="1"),
    "hstore has_key": ids(hstore__has_key="b'"),
    "hstore contains": ids(hstore__contains={"a": "1"}),
    "hstore keys": ids(hstore__keys__contains=["a"]),
    "hstore values": ids(hstore__values__overlap=["1", "%s"]),
    "hstore has_any_keys": ids(hstore__has_any_keys=["zz", 'q"']),
    "range contains a number": ids(integer_range__contains=3),
    "range contains a range": ids(integer_range__contains=(2, 3)),
    "range contained_by": ids(integer_range__contained_by=(0, 10)),
    "range overlap": ids(decimal_range__overlap=(Decimal("1.2"), Decimal("9"))),
    "range fully_lt": ids(integer_range__fully_lt=(100, 200)),
    "range adjacent_to": ids(integer_range__adjacent_to=(5, 9)),
    "range startswith": ids(integer_range__startswith=1),
    "range isempty": ids(integer_range__isempty=True),
    "range upper_inf": ids(moment_range__upper_inf=True),
    "date range contains a date": ids(date_range__contains=date(2024, 1, 15)),
    "moment range contains a moment": ids(moment_range__contains=datetime(2024, 1, 15, tzinfo=UTC)),
    "date contained_by a range": ids(
        date__contained_by=DateRange(date(2024, 1, 1), date(2025, 1, 1))
    ),
    "integer contained_by a range": ids(integer__contained_by=NumericRange(1, 100_000)),
    "generated field": ids(doubled=140_000),
    "generated text": ids(shouted__contains="LAI"),
    "tuple by pk in": ids(pk__in=[1, 2, 3]),
}

JOINS: dict[str, Statement] = {
    "get by pk": lambda db: db(Book).get(pk=3),
    "get or none": lambda db: db(Book).filter(pk=999_999).first(),
    "one join": books(author__name="Author 2"),
    "two joins": books(author__country__code="FI"),
    "outer join": books(author__country__isnull=True),
    "many to many": books(tags__name="red"),
    "many to many twice": books(Q(tags__name="red") | Q(tags__name="old")),
    "exclude many to many": lambda db: (
        db(Book).exclude(tags__name="red").order_by("id").values_list("id", "title")
    ),
    "reverse": lambda db: (
        db(Author).filter(books__pages__gte=300).distinct().order_by("name").values("name")
    ),
    "select_related": lambda db: (
        db(Book).select_related("author__country").filter(pk__lte=5).order_by("pk")
    ),
    "prefetch_related": lambda db: [
        (author, list(author.books.all()))
        for author in db(Author)
        .order_by("pk")
        .prefetch_related(Prefetch("books", db(Book).filter(pages__gt=200).order_by("pk")))
    ],
    "prefetch many to many": lambda db: [
        [tag.name for tag in book.tags.all()]
        for book in db(Book).order_by("pk").prefetch_related("tags")
    ],
    "only": lambda db: db(Book).only("title").filter(pages__lt=250).order_by("pk"),
    "defer": lambda db: db(Book).defer("title").filter(pages__lt=250).order_by("pk"),
    "values": lambda db: db(Book).filter(author=3).order_by("pk").values("title", "author__name"),
    "values_list flat": lambda db: (
        db(Country).filter(code__in=["FI", "JP"]).order_by("code").values_list("name", flat=True)
    ),
    "named values": lambda db: [
        row._asdict() for row in db(Tag).filter(pk__gt=0).order_by("pk").values_list(named=True)
    ],
    "distinct": lambda db: (
        db(Book).filter(pages__gt=1).distinct().order_by("author_id").values_list("author_id")
    ),
    "distinct on": lambda db: (
        db(Book).filter(pages__gt=1).order_by("author", "-pk").distinct("author").values("title")
    ),
    "order by expression": lambda db: (
        db(Book).filter(pages__gt=0).order_by((F("pages") % 7).desc(), "pk").values_list("pk")
    ),
    "order by nulls last": lambda db: (
        db(Book).filter(pk__gt=1).order_by(F("rating").desc(nulls_last=True), "pk").values("pk")
    ),
    "order by an annotation": lambda db: (
        db(Book).annotate(n=F("pages") + 5).order_by("-n", "pk").values_list("n")
    ),
    "slice": lambda db: db(Book).filter(pk__gt=2).order_by("pk")[2:5].values_list("title"),
    "first, last, exists, count": lambda db: [
        db(Book).filter(pages__gt=100).first(),
        db(Book).filter(pages__gt=100).last(),
        db(Book).filter(pages__gt=100).exists(),
        db(Book).filter(pages__gt=100).count(),
    ],
    "in_bulk": lambda db: list(db(Book).in_bulk([1, 2, 3]).items()),
    "earliest and latest": lambda db: [
        db(Book).filter(pk__gt=1).earliest("published"),
        db(Book).filter(pk__gt=1).latest("published", "pk"),
    ],
    "dates": lambda db: db(Book).filter(pk__gt=1).dates("published", "year"),
    "datetimes": lambda db: db(Everything).filter(moment__year=2024).datetimes("moment", "month"),
    "iterator": lambda db: list(db(Book).filter(pk__gt=1).order_by("pk").iterator(chunk_size=4)),
    "contains an object": lambda db: db(Book).filter(pk__lt=5).contains(db(Book).get(pk=2)),
    "by an object": lambda db: (
        db(Book).filter(author=db(Author).get(name="Author 3")).order_by("pk")
    ),
    "by objects": lambda db: (
        db(Book).filter(author__in=list(db(Author).order_by("pk")[1:3])).order_by("pk")
    ),
    "filtered relation": lambda db: (
        db(Author)
        .annotate(long=FilteredRelation("books", condition=Q(books__pages__gt=300)))
        .filter(long__isnull=False)
        .order_by("pk", "long__pk")
        .values_list("name", "long__title")
    ),
    "union": lambda db: (
        db(Book)
        .filter(pages=201)
        .values_list("title")
        .union(db(Book).filter(pages=301).values_list("title"))
        .order_by("title")
    ),
    "union all with values": lambda db: (
        db(Author)
        .filter(pk=1)
        .values_list("name", Value(1))
        .union(db(Country).filter(pk=1).values_list("name", Value(2)), all=True)
        .order_by("name")
    ),
    "intersection": lambda db: (
        db(Book).filter(pages__gt=200).intersection(db(Book).filter(pages__lt=302)).order_by("id")
    ),
    "difference": lambda db: (
        db(Book).filter(pages__gt=200).difference(db(Book).filter(pages__lt=302)).order_by("id")
    ),
    "select_for_update": lambda db: locked(db.alias, {}),
    "select_for_update of": lambda db: locked(db.alias, {"of": ("self",), "skip_locked": True}),
    "select_for_update no_key": lambda db: locked(db.alias, {"no_key": True, "nowait": True}),
    "extra where": lambda db: (
        db(Book).extra(where=["pages > %s"], params=[200]).order_by("pk").values_list("pk")
    ),
    "raw": lambda db: list(
        Book._default_manager.raw(
            "SELECT id, title, pages FROM differential_book WHERE pages > %s ORDER BY id", [200]
        ).using(db.alias)
    ),
    "raw by names": lambda db: list(
        Book._default_manager.raw(
            "SELECT * FROM differential_book WHERE pages > %(n)s ORDER BY id", {"n": 200}
        ).using(db.alias)
    ),
}


def locked(alias: str, how: dict[str, object]) -> list[object]:
    """Rows locked in a transaction of their own."""
    with transaction.atomic(using=alias):
        rows = Book._default_manager.using(alias).select_for_update(**how)  # type: ignore[arg-type]
        return list(rows.filter(pages__gt=300).order_by("pk"))


SUBQUERIES: dict[str, Statement] = {
    "exists": lambda db: (
        db(Author)
        .filter(Exists(db(Book).filter(author=OuterRef("pk"), pages__gt=300)))
        .order_by("pk")
        .values_list("name")
    ),
    "not exists, as a column": lambda db: (
        db(Author)
        .annotate(none=~Exists(db(Book).filter(author=OuterRef("pk"), pages=999)))
        .order_by("pk")
        .values_list("none")
    ),
    "subquery as a column": lambda db: (
        db(Author)
        .annotate(
            longest=Subquery(
                db(Book)
                .filter(author=OuterRef("pk"), pages__gt=1)
                .order_by("-pages")
                .values("title")[:1]
            )
        )
        .order_by("pk")
        .values_list("longest")
    ),
    "subquery of an aggregate": lambda db: (
        db(Author)
        .annotate(
            n=Subquery(
                db(Book)
                .filter(author=OuterRef("pk"), pages__gt=1)
                .order_by()
                .values("author")
                .annotate(n=Count("pk"))
                .values("n")
            )
        )
        .order_by("pk")
        .values_list("n")
    ),
    "in a subquery": lambda db: (
        db(Book).filter(author__in=db(Author).filter(country__code="JP")).order_by("pk")
    ),
    "compared to a subquery": lambda db: (
        db(Book)
        .filter(
            pages=Subquery(
                db(Book)
                .filter(pk__lt=9)
                .values("author")
                .annotate(m=Max("pages"))
                .order_by("-m")
                .values("m")[:1],
                output_field=IntegerField(),
            )
        )
        .values_list("title")
    ),
    "outer reference with arithmetic": lambda db: (
        db(Book)
        .filter(
            Exists(
                db(Author).filter(pk=OuterRef("author_id"), born__year__lt=OuterRef("pages") + 1700)
            )
        )
        .order_by("pk")
        .values_list("pk")
    ),
}  # fmt: skip

TEXT_SEARCH: dict[str, Statement] = {
    "search vector": lambda db: (
        db(Book)
        .annotate(s=SearchVector("title", "author__name"))
        .filter(s="author")
        .order_by("pk")
        .values_list("pk", "s")
    ),
    "search vector with configuration and weight": lambda db: (
        db(Book)
        .annotate(s=SearchVector("title", config="english", weight="B"))
        .filter(s=SearchQuery("books", config="english"))
        .order_by("pk")
        .values_list("s")
    ),
    "search rank": lambda db: (
        db(Book)
        .annotate(
            r=SearchRank(
                SearchVector("title"),
                SearchQuery("book"),
                weights=[0.1, 0.2, 0.4, 1.0],
                normalization=Value(2),
            )
        )
        .order_by("-r", "pk")
        .values_list("pk", "r")
    ),
    "search headline": lambda db: (
        db(Book)
        .annotate(
            h=SearchHeadline(
                "title", SearchQuery("book"), start_sel="<b>", max_words=10, min_words=2
            )
        )
        .order_by("pk")
        .values_list("h")
    ),
    "search with operators": lambda db: (
        db(Book)
        .annotate(s=SearchVector("title"))
        .filter(s=SearchQuery("book") & ~SearchQuery("'o''x'", search_type="raw"))
        .order_by("pk")
        .values_list("pk")
    ),
    "websearch": lambda db: (
        db(Book)
        .annotate(s=SearchVector("title"))
        .filter(s=SearchQuery('book -"x y"', search_type="websearch"))
        .order_by("pk")
        .values("pk")
    ),
    "search a stored vector": ids(vector=SearchQuery("fat", config="simple")),
    "trigram similarity": lambda db: (
        db(Book)
        .annotate(s=TrigramSimilarity("title", "book 3"))
        .filter(s__gt=0.3)
        .order_by("-s", "pk")
        .values_list("pk", "s")
    ),
}  # fmt: skip

TRANSFORMS: dict[str, Statement] = {
    "order by a transform": lambda db: (
        db(Everything).filter(id__gt=0).order_by("json__a", "id").values_list("id", "json__a")
    ),
    "key text": lambda db: (
        db(Everything)
        .annotate(k=KT("json__a"))
        .filter(k__isnull=False)
        .order_by("id")
        .values_list("k")
    ),
    "values of a path": lambda db: (
        db(Everything).filter(id__lt=9).order_by("id").values_list("json__b__c", "hstore__a")
    ),
    "index as a column": lambda db: (
        db(Everything).filter(id__lt=9).order_by("id").values_list("integers__0", "texts__0_1")
    ),
    "a registered transform": lambda db: (
        db(Everything).annotate(n=Length("char")).filter(n=5).order_by("id").values_list("n")
    ),
    "group by a truncated date": lambda db: (
        db(Book)
        .annotate(m=TruncMonth("published"))
        .values("m")
        .annotate(n=Count("pk"))
        .filter(n__gte=1)
        .order_by("m")
    ),
    "group by a key": lambda db: (
        db(Everything).values("json__b").annotate(n=Count("id")).order_by("n", "json__b")
    ),
    "extract": lambda db: (
        db(Book)
        .annotate(d=ExtractIsoWeekDay("published"))
        .filter(d__gt=2)
        .order_by("pk")
        .values_list("d")
    ),
    "cast in values": lambda db: (
        db(Book)
        .filter(pages__gt=300)
        .order_by("pk")
        .values_list(Value("x", output_field=CharField()), "pages")
    ),
}

STATEMENTS: dict[str, Statement] = {
    **LOOKUPS, **JOINS, **SUBQUERIES, **TEXT_SEARCH, **TRANSFORMS
}  # fmt: skip
