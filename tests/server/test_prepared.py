"""Prepared statements as the user of a Django database meets them."""

import contextlib
import importlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.test.utils import CaptureQueriesContext

from django_psycopg_pooled import prepare
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import Call, pool_of, value, wrapper
from tests.server.things import BY_ID, Thing, facts, names, prepared_pool, with_things


@pytest.fixture
def things(databases: Databases) -> PooledWrapper:
    return with_things(databases)


def test_a_hot_statement_is_prepared_after_the_threshold(databases: Databases) -> None:
    things = with_things(databases, prepare_threshold=3)
    for i in range(3):
        assert value(things, BY_ID, 1) == "one"
        assert names(things) == [], i
    assert value(things, BY_ID, 2) == "two"
    assert len(names(things)) == 1
    assert (facts(things).state, facts(things).hits) == ("prepared", 1)


def test_the_orm_finds_the_same_rows(things: PooledWrapper) -> None:
    manager = Thing._default_manager.using(things.alias)
    for _ in range(3):
        assert manager.get(pk=2).name == "two"
        assert manager.filter(name__startswith="t").count() == 2
        assert list(manager.filter(pk__in=[1, 3]).values_list("name", flat=True)) == [
            "one",
            "three",
        ]
        assert not manager.filter(name="none").exists()
    assert {f.state for f in prepared_pool(things).prepared()} == {"prepared"}


def test_the_orm_writes_the_same_rows(things: PooledWrapper) -> None:
    manager = Thing._default_manager.using(things.alias)
    for i in range(3):
        thing = manager.create(name=f"new {i}")
        assert manager.filter(pk=thing.pk).update(name=f"newer {i}") == 1
        assert manager.filter(name=f"newer {i}").delete()[0] == 1
        with pytest.raises(IntegrityError):
            manager.create(name="one")
    assert manager.count() == 3


def test_queries_are_shown_with_their_literals(things: PooledWrapper) -> None:
    manager = Thing._default_manager.using(things.alias)
    list(manager.filter(name="it's", pk=7))
    things.force_debug_cursor = True
    with CaptureQueriesContext(things) as captured:
        list(manager.filter(name="it's", pk=7))
    things.force_debug_cursor = False
    [query] = captured.captured_queries
    assert '"id" = 7' in query["sql"]
    assert "'it''s'" in query["sql"]
    assert facts(things, 'SELECT "things"').hits == 2


def test_a_transaction_that_rolls_back_keeps_what_it_has_prepared(things: PooledWrapper) -> None:
    with transaction.atomic(using=things.alias):
        assert value(things, BY_ID, 1) == "one"
        transaction.set_rollback(True, using=things.alias)
    before = names(things)
    assert len(before) == 1
    with transaction.atomic(using=things.alias):
        assert value(things, BY_ID, 1) == "one"
    assert names(things) == before


@pytest.mark.parametrize("sql", ["SELECT date %s", "SELECT date %s || %s"])
def test_what_cannot_be_prepared_costs_no_transaction(things: PooledWrapper, sql: str) -> None:
    params = ["2020-02-29"] * sql.count("%s")
    with transaction.atomic(using=things.alias):
        with things.cursor() as cursor:
            cursor.execute("INSERT INTO things (name) VALUES ('four')")
            for _ in range(3):
                cursor.execute(sql, params)
                assert str(cursor.fetchone()[0]).startswith("2020-02-29")
        with transaction.atomic(using=things.alias):
            assert value(things, BY_ID, 4) == "four"
    assert value(things, "SELECT count(*) FROM things") == 4
    denied = facts(things, "SELECT date")
    assert (denied.state, denied.sqlstate) == ("denied", "42601")
    assert "SyntaxError" in denied.reason


def test_what_has_a_placeholder_inside_of_quotes_means_what_it_did(things: PooledWrapper) -> None:
    for days in (1, 2, 3):
        assert value(things, "SELECT '%s' || 'x'", days) == f"{days}x"
        assert value(things, "SELECT (interval '%s days')::text", days).startswith(str(days))
    assert names(things) == []


def test_each_connection_holds_no_more_than_prepared_max(databases: Databases) -> None:
    things = with_things(databases, prepared_max=5)
    for i in range(12):
        assert value(things, f"SELECT name, {i} FROM things WHERE id = %s", 1) == "one"
    assert len(names(things)) == 5
    assert value(things, "SELECT name, 0 FROM things WHERE id = %s", 1) == "one"


def test_the_next_borrower_finds_statements_prepared(things: PooledWrapper) -> None:
    value(things, BY_ID, 1)
    before = names(things)
    things.close()
    value(things, BY_ID, 1)
    assert names(things) == before


def test_a_reset_between_borrowers_leaves_them_prepared(things: PooledWrapper) -> None:
    value(things, BY_ID, 1)
    before = names(things)
    with things.cursor() as cursor:
        cursor.execute("SET work_mem = '10MB'")
        cursor.execute("PREPARE users_own AS SELECT 1")
    things.close()
    assert value(things, "SHOW work_mem") != "10MB"
    assert names(things) == before
    assert value(things, "SELECT count(*) FROM pg_prepared_statements") == 1
    assert value(things, BY_ID, 2) == "two"


def test_all_connections_share_what_is_known(things: PooledWrapper) -> None:
    gate = threading.Barrier(3)

    def work() -> list[str]:
        mine = wrapper(things.alias)
        found = []
        for i in range(30):
            found.append(value(mine, BY_ID, i % 3 + 1))
            if i == 0:
                gate.wait(10)
        return found

    calls = [Call(work) for _ in range(3)]
    assert all(call.outcome() == ["one", "two", "three"] * 10 for call in calls)
    shared = facts(things)
    assert shared.variants == 1
    assert shared.connections == 3
    assert shared.hits >= 85, "each connection looks once in 64 what plain execution takes"


def test_a_registered_queryset_is_prepared_and_others_are_not(databases: Databases) -> None:
    things = with_things(databases, prepare="registered", prepare_threshold=5)
    manager = Thing._default_manager.using(things.alias)
    pool = prepared_pool(things)
    pool.add_prepare_target(manager.filter(name="any"), "by name", "force_generic_plan")
    for _ in range(5):
        assert len(manager.filter(name="one")) == 1
        assert manager.filter(pk__gt=2).count() == 1
    [target] = pool.prepared()
    assert (target.name, target.state, target.hits) == ("by name", "prepared", 5)
    generic = "SELECT generic_plans FROM pg_prepared_statements WHERE name LIKE '\\_dpp%'"
    assert value(things, generic) == 5
    assert value(things, "SHOW plan_cache_mode") == "auto"


@pytest.mark.parametrize("statement", [5, None, Thing._default_manager])
def test_what_is_neither_a_queryset_nor_sql_cannot_be_a_target(
    databases: Databases, statement: Any
) -> None:
    pool = pool_of(databases.add(True))
    with pytest.raises(TypeError, match=r"statement is .*; it must be a queryset, or SQL with %s"):
        pool.add_prepare_target(statement)


def test_a_block_prepares_what_runs_in_it(databases: Databases) -> None:
    things = with_things(databases, prepare_threshold=100)
    value(things, BY_ID, 1)
    assert names(things) == []
    with prepare():
        value(things, BY_ID, 1)
    assert len(names(things)) == 1


def test_nothing_is_prepared_when_it_is_off_or_behind_a_pooler(databases: Databases) -> None:
    for pool in ({"prepare": False}, {"prepare": None, "pooler": "pgbouncer"}):
        things = with_things(databases, **pool)
        with prepare():
            for _ in range(3):
                assert value(things, BY_ID, 1) == "one"
        assert names(things) == []
        assert prepared_pool(things).prepared() == []
        things.close()


def test_other_ways_to_execute_go_by(things: PooledWrapper) -> None:
    manager = Thing._default_manager.using(things.alias)
    for _ in range(3):
        with transaction.atomic(using=things.alias):
            assert len(list(manager.filter(pk__gt=0).iterator(chunk_size=2))) == 3
        with things.cursor() as cursor:
            cursor.executemany("UPDATE things SET name = name WHERE id = %s", [(1,), (2,)])
            cursor.execute("UPDATE things SET name = name")
            cursor.execute("SELECT set_config('work_mem', %s, false)", ["5MB"])
    assert names(things) == []


def test_parameters_of_too_many_kinds_end_it_without_harm(things: PooledWrapper) -> None:
    sql = "SELECT name FROM things WHERE %s::text IS NOT NULL"
    for given in (1, 2**40, "x", 1.5, True, None, 2**70, 3):
        expected = None if given is None else "one"
        with things.cursor() as cursor:
            cursor.execute(sql, [given])
            row = cursor.fetchone()
        assert (row and row[0]) == expected
    assert facts(things).state == "denied"


def test_wrong_parameters_raise_what_they_did(things: PooledWrapper, databases: Databases) -> None:
    plain = databases.add({"prepare": False, "max_size": 1})
    value(things, BY_ID, 1)
    wrong: list[Any] = [(1, 2), [], {"a": 1}, ("x",), (object(),), ("\x00",)]
    for params in wrong:
        raised = []
        for each in (plain, things):
            with each.cursor() as cursor, pytest.raises(Exception) as caught:  # noqa: PT011
                cursor.execute(BY_ID, params)
            # Where in the text it is, a prepared statement cannot say.
            raised.append((type(caught.value), str(caught.value).splitlines()[0]))
        assert raised[0] == raised[1], params


@pytest.mark.skipif(not is_psycopg3, reason="psycopg2 does not hear signals while it waits")
def test_an_interrupt_ends_the_statement_and_the_connection_goes_on(things: PooledWrapper) -> None:
    sleep = "SELECT pg_sleep(%s::float8 / 1000)"
    value(things, sleep, 1)
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.1):
        value(things, sleep, 20_000)
    assert value(things, BY_ID, 1) == "one"
    value(things, sleep, 1)
    assert facts(things, "SELECT pg_sleep").hits == 2


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Ctrl-C while the block runs."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not is_psycopg3, reason="psycopg 3's hooks")
def test_without_psycopgs_hooks_nothing_is_prepared_and_all_works(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = importlib.import_module("psycopg._cursor_base").BaseCursor
    check = base._check_results
    monkeypatch.delattr(base, "_check_results")
    things = databases.add({"prepare": "auto", "prepare_threshold": 0, "max_size": 1})
    assert things.pool is not None
    monkeypatch.setattr(base, "_check_results", check, raising=False)
    assert value(things, "SELECT %s::int", 1) == 1
    assert names(things) == []
    assert "Cursor._check_results" in caplog.text


@pytest.mark.skipif(not is_psycopg3, reason="psycopg 3's connection only")
def test_what_the_user_does_with_psycopg_itself_goes_by(things: PooledWrapper) -> None:
    psycopg = importlib.import_module("psycopg")
    value(things, BY_ID, 1)
    raw = things.connection
    with raw.pipeline(), raw.cursor() as cursor:
        cursor.execute(BY_ID, (1,))
        assert cursor.fetchone() == ("one",)
    with raw.cursor(binary=True) as cursor, contextlib.suppress(psycopg.NotSupportedError):
        cursor.execute(BY_ID, (1,))
    with psycopg.Cursor(raw) as cursor:
        cursor.execute(BY_ID, (1,))
        assert cursor.fetchone() == ("one",)
    with raw.cursor() as cursor:
        assert list(cursor.stream(BY_ID, (1,))) == [("one",)]
    assert facts(things).hits == 1


@pytest.mark.skipif(not is_psycopg3, reason="psycopg 3's adapters")
def test_adapters_of_the_users_are_honoured(things: PooledWrapper) -> None:
    adapt = importlib.import_module("psycopg.adapt")

    class Upper:
        def __init__(self, text: str) -> None:
            self.text = text

    class Dumper(adapt.Dumper):  # type: ignore[name-defined,misc]
        def dump(self, obj: Upper) -> bytes:
            return obj.text.upper().encode()

    with things.cursor() as cursor:
        cursor.cursor.adapters.register_dumper(Upper, Dumper)
        for _ in range(3):
            cursor.execute("SELECT %s || ''", [cast(Any, Upper("loud"))])
            assert cursor.fetchone() == ("LOUD",)
    assert facts(things, "SELECT %s").hits == 3
