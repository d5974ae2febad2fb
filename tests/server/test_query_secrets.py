"""No parameter and no literal is in anything that a pool keeps, returns, logs or sends."""

import datetime
import decimal
import gc
import io
import logging
import pickle
import random
import secrets
import types
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connections, models, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3, sql
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from django_psycopg_pooled import pools
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.statements.figures import RANKS
from tests.labelled import labelled
from tests.server.databases import Databases

# Made when the tests run, so that no constant of their code has them.
WORD = secrets.token_hex(8)
NUMBER = random.SystemRandom().randrange(10**17, 10**18)
UUID = uuid.uuid4()
PLANTED = [WORD, str(NUMBER), str(UUID), UUID.hex]


class Note(models.Model):
    title = models.TextField(unique=True)
    data = models.JSONField(null=True)
    number = models.BigIntegerField(null=True)
    key = models.UUIDField(null=True)
    price = models.DecimalField(max_digits=30, decimal_places=2, null=True)

    objects: models.Manager["Note"] = models.Manager()

    class Meta:
        app_label = "secrets"
        db_table = "notes"


@pytest.fixture(params=[{}, {"prepare": "auto", "prepare_threshold": 0}], ids=["plain", "prepared"])
def connection(databases: Databases, request: pytest.FixtureRequest) -> Iterator[PooledWrapper]:
    """'default', whose every statement is traced, slow and, in one of two runs, prepared."""
    databases.server.psql(
        "CREATE TABLE notes (id bigserial PRIMARY KEY, title text UNIQUE, data jsonb,"
        " number bigint, key uuid, price numeric)",
        "tests",
    )
    options = {"slow_query_threshold": 1e-9, "query_report_interval": 1e-9, **request.param}
    connection = databases.add(options, alias="default")
    yield connection
    connection.close()
    connection.close_pool()
    databases.server.psql("DROP TABLE notes", "tests")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that our loggers say, tracebacks and all."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("django_psycopg_pooled")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def use_the_orm() -> None:
    note = {"data": {WORD: [NUMBER]}, "number": NUMBER, "key": UUID, "price": decimal.Decimal(7)}
    for n in range(3):
        Note.objects.create(title=f"{WORD} {n}", **note)
    Note.objects.bulk_create(Note(title=f"{WORD} many {n}", **note) for n in range(30))
    Note.objects.filter(title__contains=WORD).update(number=NUMBER, data={"a": WORD})
    assert Note.objects.filter(number__in=[NUMBER, NUMBER + 1], key=UUID).count() == 33
    assert Note.objects.filter(data__a=WORD, price__lt=NUMBER).exists()
    assert len(list(Note.objects.filter(title__startswith=WORD).iterator(chunk_size=10))) == 33
    Note.objects.filter(title=f"{WORD} 1").delete()


def write_sql(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT '{WORD}', E'{WORD}', $${WORD}$$, {NUMBER}, -{NUMBER}.5")
        cursor.execute(f"SELECT 1 /* {WORD} */ -- {NUMBER}")
        cursor.execute(f"SELECT 1 WHERE '{WORD}' IN ('{WORD}', 'x{WORD}')")
        cursor.execute(f"SET application_name = '{WORD[:10]}'")
        cursor.execute("SELECT set_config('application_name', %s, false)", [WORD])
        cursor.execute("SELECT %(word)s, %(number)s", {"word": WORD, "number": NUMBER})
        cursor.execute("SELECT %s::text[], %s", [[WORD, "b"], datetime.date(2000, 1, 1)])
        cursor.executemany("SELECT %s::text", [[WORD], [f"{WORD}{NUMBER}"]])
        cursor.execute(sql.SQL("SELECT {}").format(sql.Literal(WORD)))
    raw: Any = connection.connection
    with raw.cursor() as cursor:
        if is_psycopg3:
            with cursor.copy(f"COPY (SELECT '{WORD}') TO STDOUT") as copy:
                list(copy)
        else:
            cursor.copy_expert(f"COPY (SELECT '{WORD}') TO STDOUT", io.StringIO())


def fail(connection: PooledWrapper) -> None:
    Note.objects.create(title=WORD)
    with pytest.raises(DatabaseError, match=WORD):  # the key and its value, in the error's detail
        Note.objects.create(title=WORD)
    failing: list[tuple[str, Any]] = [
        ("SELECT %s::int", [WORD]), (f"SELECT '{WORD}'::int", None), (f"SELEKT '{WORD}'", None),
        (f"SELECT '{WORD}", None), (f"SELECT $a${WORD}", None), ("SELECT %s::date", [str(NUMBER)]),
    ]  # fmt: skip
    for statement, params in failing:
        with (
            pytest.raises(DatabaseError),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement, params)


def view(request: HttpRequest, key: str) -> HttpResponse:
    Note.objects.filter(title=key).exists()
    return HttpResponse()


urlpatterns = [path("notes/<str:key>/", view)]


def browse() -> None:
    with labelled(__name__):
        Client(headers={"user-agent": WORD}).get(f"/notes/{WORD}/?q={WORD}")
        Client().generic(WORD.upper(), f"/notes/{WORD}/")


def assert_clean(where: str, text: str) -> None:
    for planted in PLANTED:
        assert planted.lower() not in text.lower(), f"{where}: {text}"


def test_planted_values_appear_in_no_output(connection: PooledWrapper, log: io.StringIO) -> None:
    pool = pools["default"]
    pool.queries.trace(300)
    use_the_orm()
    write_sql(connection)
    fail(connection)
    browse()
    for by in RANKS:
        top = pool.queries.top(1000, by)
        assert_clean(by, repr(top))
        assert_clean(f"{by}, sent", repr(pickle.dumps(top)))
        assert_clean(f"{by}, table", pool.queries.as_table(1000, by))
        assert_clean(f"{by}, JSON", pool.queries.as_json(1000, by))
    pool.queries.report_if_due()
    top = pool.queries.top(1000)
    assert sum(facts.calls for facts in top) > 25
    assert sum(facts.errors for facts in top) == 7
    assert {work.text for facts in top for work in facts.works} >= {"GET /notes/<str:key>/"}
    said = log.getvalue()
    for part in ("trace:", "slow, above", "statements by total_time", "22P02", "GET /notes/"):
        assert part in said
    assert_clean("log", said)
    for thing in (pool, pool.queries, pool.snapshot(), pool.prepared(), pool.as_table()):
        assert_clean("repr", repr(thing))


def test_no_parameter_is_kept_beyond_its_statement(connection: PooledWrapper) -> None:
    """In nothing that can be reached from the pool, but for the pool's own kind of things."""
    use_the_orm()
    with connection.cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT %s, %s", [WORD, NUMBER])
            cursor.execute("SELECT %(word)s", {"word": WORD})
    del cursor
    connections["default"].close()
    kept = [thing for thing in reachable(pools["default"]) if has_planted(thing)]
    assert kept == []


def reachable(root: object) -> list[object]:
    skipped = (type, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType)
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not isinstance(thing, skipped):
            seen[id(thing)] = thing
            if not (isinstance(thing, dict) and "__builtins__" in thing):
                waiting.extend(gc.get_referents(thing))
    assert len(seen) > 200
    return list(seen.values())


def has_planted(thing: object) -> bool:
    if isinstance(thing, bytes):
        thing = thing.decode("latin-1")
    if isinstance(thing, str):
        return any(planted in thing for planted in PLANTED)
    return thing == NUMBER if type(thing) is int else isinstance(thing, uuid.UUID) and thing == UUID


def test_the_search_for_what_is_kept_finds_what_is_kept(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    record = pools["default"]._statements.book.look_up("SELECT 1")
    record.family = [{"a": WORD}]
    assert [thing for thing in reachable(pools["default"]) if has_planted(thing)] == [WORD]
