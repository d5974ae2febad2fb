"""Receivers of connection_created that register types: whose they are, and what they cost.

django.contrib.postgres has such a receiver, for hstore and citext.
"""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.contrib.postgres.signals import register_type_handlers
from django.core.signals import request_finished
from django.db.backends.signals import connection_created

from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import Call, in_thread, pool_of, value, wrapper

EARLY = {"release": "transaction", "max_size": 1, "timeout": 5}
WHEN = pytest.mark.parametrize("when", ["checkout", "session"])
DATE = "SELECT '2026-01-31'::date"
PLAIN = "2026-01-31"


def register(raw: Any, text: str) -> None:
    """Have dates be *text* on this driver's connection."""
    if DRIVER.name == "psycopg":
        from psycopg.adapt import Loader

        def load(_self: object, _data: object) -> str:
            return text

        raw.adapters.register_loader("date", type("Dates", (Loader,), {"load": load}))
    else:
        from psycopg2 import extensions

        dates = extensions.new_type((1082,), "Dates", lambda _value, _cursor: text)
        extensions.register_type(dates, raw)


def date(connection: PooledWrapper) -> str:
    return str(value(connection, DATE))


@contextmanager
def receiving(receiver: Callable[..., object]) -> Iterator[None]:
    connection_created.connect(receiver, weak=False)
    try:
        yield
    finally:
        connection_created.disconnect(receiver)


class Tenants:
    """A receiver that registers the type of this thread's tenant, if there is one."""

    def __init__(self, tenant: str | None) -> None:
        self.of = threading.local()
        self.of.tenant = tenant
        self.calls = 0

    def __call__(self, connection: PooledWrapper, **_: object) -> None:
        self.calls += 1
        if tenant := getattr(self.of, "tenant", None):
            register(connection.connection, tenant)


@pytest.fixture
def tenants() -> Iterator[Tenants]:
    """This thread's is A."""
    tenants = Tenants("A")
    with receiving(tenants):
        yield tenants


@contextmanager
def other_session(connection: PooledWrapper) -> Iterator[None]:
    """Whoever comes to a pool of two meanwhile gets the other session."""
    with pool_of(connection).connection():
        yield


# ---- what stays


@pytest.fixture
def extensions(databases: Databases) -> Iterator[None]:
    databases.server.psql(
        "CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS citext", "tests"
    )
    yield
    databases.server.psql("DROP EXTENSION hstore", "tests")


@WHEN
def test_twenty_threads_share_one_connection_with_hstore_registered(
    databases: Databases, extensions: None, when: str
) -> None:
    """Held for each request, this takes 20 x 0.2 s."""
    connection = databases.add({**EARLY, "connection_created": when})

    def view() -> list[Any]:
        mine = wrapper(connection.alias)
        one = value(mine, "SELECT 'a=>1'::hstore")
        time.sleep(0.2)  # the API that the view calls
        return [one, value(mine, "SELECT 'a=>1'::hstore"), value(mine, "SELECT '{b}'::citext[]")]

    with receiving(register_type_handlers):
        in_thread(view)
        began = time.monotonic()
        calls = [Call(view) for _ in range(20)]
        assert [call.outcome() for call in calls] == [[{"a": "1"}, {"a": "1"}, ["b"]]] * 20
        assert time.monotonic() - began < 3
    assert pool_of(connection).get_stats()["connections_num"] == 1


@WHEN
def test_every_session_that_a_request_meets_has_the_types(
    databases: Databases, tenants: Tenants, when: str
) -> None:
    connection = databases.add({**EARLY, "max_size": 2, "connection_created": when})
    assert date(connection) == "A"
    assert connection.connection is None
    with other_session(connection):
        assert date(connection) == "A"
        assert connection.connection is None
    assert date(connection) == "A"
    assert tenants.calls == 2


def test_the_signal_is_sent_once_a_request_while_nobody_else_has_the_session(
    databases: Databases, tenants: Tenants
) -> None:
    connection = databases.add(EARLY)
    finish: Callable[[], object] = partial(request_finished.send, sender=None)
    ends = (connection.close, finish, connection.close)
    for requests, end in enumerate(ends, 1):
        assert [date(connection) for _ in range(3)] == ["A"] * 3
        assert tenants.calls == requests
        end()


@pytest.mark.parametrize("release", ["request", "transaction"])
def test_types_of_a_signal_that_is_sent_once_a_session_stay_with_it(
    databases: Databases, tenants: Tenants, release: str
) -> None:
    connection = databases.add({**EARLY, "release": release, "connection_created": "session"})
    for _ in range(3):
        assert date(connection) == "A"
        connection.close()
    assert in_thread(lambda: date(wrapper(connection.alias))) == "A"
    assert tenants.calls == 1
    assert pool_of(connection).get_stats()["returns_bad"] == 0


@pytest.mark.parametrize("release", ["request", "transaction"])
def test_types_are_there_again_after_a_session_was_reset(
    databases: Databases, tenants: Tenants, release: str
) -> None:
    connection = databases.add({**EARLY, "release": release, "connection_created": "session"})
    for resets in (1, 2, 3):
        value(connection, "SELECT set_config('work_mem', '1MB', false)")
        connection.close()
        assert date(connection) == "A"
        assert tenants.calls == resets + 1


# ---- what does not


def test_no_request_sees_the_types_of_another(databases: Databases, tenants: Tenants) -> None:
    connection = databases.add(EARLY)
    second, third = connection.copy(), connection.copy()

    def date_of(tenant: str | None, request: PooledWrapper) -> str:
        tenants.of.tenant = tenant
        return date(request)

    assert date_of("A", connection) == "A"
    assert date_of(None, second) == PLAIN
    assert date_of("A", connection) == "A"
    assert date_of(None, second) == PLAIN
    assert date_of("B", third) == "B"
    assert date_of("A", connection) == "A"
    request_finished.send(sender=None)
    assert date_of(None, connection) == PLAIN
    assert pool_of(connection).get_stats()["connections_num"] == 1


@WHEN
def test_what_a_borrower_registers_over_it_is_taken_back(
    databases: Databases, tenants: Tenants, when: str
) -> None:
    connection = databases.add({**EARLY, "connection_created": when})
    assert date(connection) == "A"
    with connection.cursor():
        register(connection.connection, "mine")
    assert connection.connection is not None
    assert date(connection) == "mine"
    connection.close()
    assert date(connection) == "A"
    others = in_thread(lambda: date(wrapper(connection.alias)))
    assert others == ("A" if when == "session" else PLAIN)


def test_what_a_receiver_sets_for_its_request_holds_the_session_and_is_undone(
    databases: Databases, tenants: Tenants
) -> None:
    """A tenant's search_path, beside the types."""
    connection = databases.add(EARLY)

    def receive(connection: PooledWrapper, **_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = pg_catalog")

    with receiving(receive):
        assert date(connection) == "A"
        assert connection.connection is not None
        assert value(connection, "SHOW search_path") == "pg_catalog"
        connection.close()
    with pool_of(connection).connection() as raw, raw.cursor() as cursor:
        cursor.execute("SHOW search_path")
        assert cursor.fetchone()[0] != "pg_catalog"


@pytest.mark.skipif(DRIVER.name != "psycopg", reason="psycopg2 prepares nothing by itself")
def test_what_a_receiver_says_of_preparing_holds_the_session_and_is_undone(
    databases: Databases,
) -> None:
    connection = databases.add(EARLY)

    def receiver(connection: PooledWrapper, **_: object) -> None:
        connection.connection.prepare_threshold = 3

    with receiving(receiver):
        value(connection, "SELECT 1")
        assert pool_of(connection).snapshot().count("lent") == 1
        connection.close()
    with pool_of(connection).connection() as raw:
        assert raw.prepare_threshold is None


def test_types_go_when_the_options_change(databases: Databases, tenants: Tenants) -> None:
    connection = databases.add({**EARLY, "connection_created": "session"})
    pool = pool_of(connection)
    assert date(connection) == "A"
    tenants.of.tenant = None
    pool.configure(connection_created="checkout", release="request")
    assert date(connection) == PLAIN
    connection.close()
    tenants.of.tenant = "B"
    pool.configure(connection_created="session")
    assert date(connection) == "B"


def test_a_session_whose_receiver_raised_is_announced_again(
    databases: Databases, tenants: Tenants
) -> None:
    connection = databases.add({**EARLY, "connection_created": "session"})

    def refuse(**_: object) -> None:
        raise ZeroDivisionError

    with receiving(refuse), pytest.raises(ZeroDivisionError):
        date(connection)
    connection.close()
    assert date(connection) == "A"


@pytest.mark.skipif(DRIVER.name == "psycopg2", reason="psycopg2's connections have no handlers")
@WHEN
def test_a_handler_that_is_added_at_each_signal_is_called_once(
    databases: Databases, when: str
) -> None:
    connection = databases.add({**EARLY, "connection_created": when})
    heard: list[str] = []

    def hear(notice: Any) -> None:
        heard.append(notice.message_primary)

    def receive(connection: PooledWrapper, **_: object) -> None:
        raw: Any = connection.connection
        raw.add_notice_handler(hear)

    with receiving(receive):
        for _ in range(3):
            with connection.cursor() as cursor:
                cursor.execute("SET work_mem = '1MB'")
            connection.close()
        heard.clear()
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE NOTICE 'news'; END $$")
    assert heard == ["news"]


@WHEN
def test_many_signals_for_one_session_leave_nothing_behind(
    databases: Databases, tenants: Tenants, when: str
) -> None:
    connection = databases.add({**EARLY, "connection_created": when})

    def shapes() -> int:
        gc.collect()
        return sum(type(o).__name__ in ("Shape", "NotingAdapters") for o in gc.get_objects())

    def use() -> None:
        value(connection, "SELECT set_config('work_mem', '1MB', false)")
        connection.close()
        assert date(connection) == "A"

    use()
    before = shapes()
    for _ in range(5):
        use()
    assert tenants.calls >= 6
    assert shapes() <= before


@WHEN
def test_a_receiver_that_closes_the_connection_changes_no_other_loan(
    databases: Databases, when: str
) -> None:
    connection = databases.add({**EARLY, "connection_created": when})
    pool = pool_of(connection)
    lent: list[Any] = []

    def receive(connection: PooledWrapper, **_: object) -> None:
        connection.close()
        lent.append(pool.getconn())
        register(lent[0], "A")

    with receiving(receive):
        connection.connect()
    pool.putconn(lent.pop())
    assert date(connection) == PLAIN
