"""What a borrower can change on a connection of psycopg2: all of it is noticed, and goes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devtools.postgres import PostgresServer
from django_psycopg_pooled.drivers.protocol import Driver
from tests.server.support import DATABASE

pytest.importorskip("psycopg2", exc_type=ImportError)

import psycopg2
from psycopg2 import extensions, extras

from django_psycopg_pooled.drivers.psycopg2 import Psycopg2Driver

READABLE = ("autocommit", "cursor_factory", "isolation_level", "readonly", "deferrable", "encoding")
UPPER = extensions.new_type((25,), "UPPER", lambda text, _: text and text.upper())


class TheirCursor(extensions.cursor):
    pass


@pytest.fixture
def driver() -> Driver:
    return Psycopg2Driver()


def connect(driver: Driver, server: PostgresServer, **changes: Any) -> Any:
    kwargs = {"cursor_factory": extensions.cursor, **server.connect_kwargs(DATABASE), **changes}
    connection = psycopg2.connect(**driver.connect_params(kwargs))
    driver.tidy(connection)
    return connection


@pytest.fixture
def connection(driver: Driver, server: PostgresServer) -> Iterator[Any]:
    """A connection as the pool has it."""
    connection = connect(driver, server)
    yield connection
    connection.close()


@pytest.fixture
def shape(driver: Driver, connection: Any) -> Any:
    return driver.shape(connection)


def as_it_looks(raw: Any) -> dict[str, Any]:
    """All that a borrower can see of it."""
    with raw.cursor() as cursor:
        cursor.execute("SELECT 'a'::text")
        [loaded] = cursor.fetchone()
    return {**{name: getattr(raw, name) for name in READABLE}, "loads": loaded}


FREE: dict[str, Callable[[Any], object]] = {
    "autocommit": lambda raw: setattr(raw, "autocommit", False),
    "set_session(autocommit)": lambda raw: raw.set_session(autocommit=False),
    "cursor_factory": lambda raw: setattr(raw, "cursor_factory", TheirCursor),
    "register_type()": lambda raw: extensions.register_type(UPPER, raw),
}
SENT: dict[str, Callable[[Any], object]] = {
    "isolation_level": lambda raw: setattr(raw, "isolation_level", "SERIALIZABLE"),
    "set_isolation_level()": lambda raw: raw.set_isolation_level(1),
    "set_session(isolation_level)": lambda raw: raw.set_session("REPEATABLE READ"),
    "readonly": lambda raw: setattr(raw, "readonly", True),
    "readonly = False": lambda raw: setattr(raw, "readonly", False),
    "set_session(readonly)": lambda raw: raw.set_session(readonly=True),
    "deferrable": lambda raw: setattr(raw, "deferrable", True),
    "set_session(deferrable)": lambda raw: raw.set_session(deferrable=True),
    "set_client_encoding()": lambda raw: raw.set_client_encoding("LATIN1"),
}


@pytest.mark.parametrize("name", FREE)
def test_a_change_is_noticed_and_taken_back_each_time_it_is_made(
    driver: Driver, connection: Any, shape: Any, name: str
) -> None:
    fresh = as_it_looks(connection)
    assert driver.is_tidy(connection, shape)
    for _ in range(2):
        FREE[name](connection)
        assert not driver.is_tidy(connection, shape)
        assert as_it_looks(connection) != fresh, "this changes nothing"
        # As Hygiene.clean() does.
        driver.tidy(connection)
        driver.reshape(connection, shape)
        assert driver.is_tidy(connection, shape)
        assert as_it_looks(connection) == fresh


@pytest.mark.parametrize("name", SENT)
def test_what_psycopg2_may_have_sent_to_the_server_ends_the_connection(
    driver: Driver, connection: Any, shape: Any, name: str
) -> None:
    SENT[name](connection)
    assert not driver.is_tidy(connection, shape)
    driver.tidy(connection)
    with pytest.raises(psycopg2.InterfaceError, match="a borrower has changed its"):
        driver.reshape(connection, shape)
    assert not driver.is_tidy(connection, shape)


def test_a_change_that_the_borrower_takes_back_is_no_harm(
    driver: Driver, connection: Any, shape: Any
) -> None:
    fresh = as_it_looks(connection)
    connection.readonly = True
    connection.readonly = None
    connection.set_client_encoding("LATIN1")
    connection.set_client_encoding(fresh["encoding"])
    driver.tidy(connection)
    driver.reshape(connection, shape)
    assert driver.is_tidy(connection, shape)
    assert as_it_looks(connection) == fresh


def test_a_connection_that_is_used_and_not_changed_stays_tidy(
    driver: Driver, connection: Any, shape: Any
) -> None:
    connection.autocommit = False
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1, 'a', now()")
    connection.autocommit = True
    with connection.cursor("named", withhold=True) as cursor:
        cursor.execute("SELECT 1")
    assert driver.is_tidy(connection, shape)


def test_reset_is_noticed(driver: Driver, connection: Any, shape: Any) -> None:
    connection.reset()
    assert not driver.is_tidy(connection, shape)


def test_two_connections_of_one_pool_notice_their_own_changes_only(
    driver: Driver, connection: Any, shape: Any, server: PostgresServer
) -> None:
    other = connect(driver, server)
    try:
        others = driver.shape(other)
        extensions.register_type(UPPER, other)
        other.readonly = True
        assert driver.is_tidy(connection, shape)
        assert not driver.is_tidy(other, others)
    finally:
        other.close()


# ---- cursors


def test_cursors_are_watched_whatever_class_the_borrower_names(
    driver: Driver, connection: Any, shape: Any
) -> None:
    class Watched(extensions.cursor):
        pass

    driver.session(connection).watching = lambda _kind: Watched
    connection.cursor_factory = Watched
    shape = driver.shape(connection)
    assert type(connection._pool_cursor()) is Watched
    assert type(connection.cursor(cursor_factory=TheirCursor)) is Watched
    assert not connection._pool_touched
    connection.cursor_factory = TheirCursor
    assert connection._pool_touched, "nobody asks _pool_cursor() then"
    assert type(connection.cursor()) is Watched
    driver.reshape(connection, shape)
    assert type(connection._pool_cursor()) is Watched


def test_a_connection_class_with_cursors_of_its_own_makes_them(
    driver: Driver, server: PostgresServer
) -> None:
    connection = connect(
        driver, server, connection_factory=extras.RealDictConnection, cursor_factory=None
    )
    try:
        for make in (connection._pool_cursor, connection.cursor):
            with make() as cursor:
                cursor.execute("SELECT 1 AS one")
                assert cursor.fetchone() == {"one": 1}
    finally:
        connection.close()


def test_cursors_take_psycopg2s_arguments_by_place_and_by_name(
    driver: Driver, connection: Any
) -> None:
    by_place = connection.cursor("a", TheirCursor, True, False)
    by_name = connection.cursor(
        scrollable=False, withhold=True, cursor_factory=TheirCursor, name="a"
    )
    for cursor in (by_place, by_name):
        assert type(cursor) is TheirCursor
        assert (cursor.name, cursor.withhold, cursor.scrollable) == ("a", True, False)
    with pytest.raises(TypeError):
        connection.cursor("a", None, True, False, "one too many")
