"""What a borrower can change on a connection of psycopg 3: all of it is noticed and taken back."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devtools.postgres import PostgresServer
from django_psycopg_pooled.drivers.protocol import Driver, TransactionStatus
from django_psycopg_pooled.session import ANYTHING
from tests.server.support import DATABASE

pytest.importorskip("psycopg", exc_type=ImportError)

import psycopg
from psycopg import IsolationLevel
from psycopg.adapt import Dumper, Loader
from psycopg.rows import dict_row
from psycopg.types import TypeInfo

from django_psycopg_pooled.drivers.psycopg3 import PsycopgDriver

READABLE = (
    "autocommit", "isolation_level", "read_only", "deferrable", "row_factory", "cursor_factory",
    "server_cursor_factory", "prepare_threshold", "prepared_max",
)  # fmt: skip


class TheirDumper(Dumper):
    def dump(self, obj: object) -> bytes:
        return b"theirs"


class TheirLoader(Loader):
    def load(self, data: object) -> str:
        return "theirs"


class TheirCursor(psycopg.Cursor[Any]):
    pass


class TheirServerCursor(psycopg.ServerCursor[Any]):
    pass


def never(*_: object) -> None:
    raise AssertionError("another borrower's handler was called")


def first_borrowers(*_: object) -> None:
    """A handler that was there before anybody had the connection."""


@pytest.fixture
def driver() -> Driver:
    return PsycopgDriver()


@pytest.fixture
def connection(driver: Driver, server: PostgresServer) -> Iterator[Any]:
    """A connection as the pool has it."""
    with psycopg.connect(**server.connect_kwargs(DATABASE)) as connection:
        driver.tidy(connection)
        connection.add_notice_handler(first_borrowers)
        connection.add_notify_handler(first_borrowers)
        driver.session(connection).watched = int(ANYTHING)
        yield connection


@pytest.fixture
def shape(driver: Driver, connection: Any) -> Any:
    return driver.shape(connection)


def as_it_looks(raw: Any) -> dict[str, Any]:
    """All that a borrower can see of it; costs no round trip."""
    transformer = psycopg.adapt.Transformer(raw)
    loader = transformer.get_loader(psycopg.adapters.types["text"].oid, psycopg.pq.Format.TEXT)
    dumper = transformer.get_dumper("as ever", psycopg.adapt.PyFormat.TEXT)
    return {
        **{name: getattr(raw, name) for name in READABLE},
        "notices": list(raw._notice_handlers),
        "notifies": list(raw._notify_handlers),
        "loads": loader.load(b"as ever"),
        "dumps": bytes(dumper.dump("as ever") or b""),
        "types": raw.adapters.types.get("theirs"),
        "begins": bytes(raw._get_tx_start_command()),
    }


CHANGES: dict[str, Callable[[Any], object]] = {
    "autocommit": lambda raw: setattr(raw, "autocommit", False),
    "set_autocommit()": lambda raw: raw.set_autocommit(False),
    "isolation_level": lambda raw: setattr(raw, "isolation_level", IsolationLevel.SERIALIZABLE),
    "set_isolation_level()": lambda raw: raw.set_isolation_level(IsolationLevel.READ_COMMITTED),
    "read_only": lambda raw: setattr(raw, "read_only", True),
    "read_only = False": lambda raw: setattr(raw, "read_only", False),
    "set_read_only()": lambda raw: raw.set_read_only(True),
    "deferrable": lambda raw: setattr(raw, "deferrable", True),
    "set_deferrable()": lambda raw: raw.set_deferrable(False),
    "row_factory": lambda raw: setattr(raw, "row_factory", dict_row),
    "cursor_factory": lambda raw: setattr(raw, "cursor_factory", TheirCursor),
    "server_cursor_factory": lambda raw: setattr(raw, "server_cursor_factory", TheirServerCursor),
    "prepare_threshold": lambda raw: setattr(raw, "prepare_threshold", 0),
    "prepare_threshold = None": lambda raw: setattr(raw, "prepare_threshold", None),
    "prepared_max": lambda raw: setattr(raw, "prepared_max", 1),
    "add_notice_handler()": lambda raw: raw.add_notice_handler(never),
    "remove_notice_handler()": lambda raw: raw.remove_notice_handler(first_borrowers),
    "add_notify_handler()": lambda raw: raw.add_notify_handler(never),
    "remove_notify_handler()": lambda raw: raw.remove_notify_handler(first_borrowers),
    "types.add()": lambda raw: psycopg.types.TypeInfo("theirs", 123456, 0).register(raw),
    "register_loader()": lambda raw: raw.adapters.register_loader("text", TheirLoader),
    "register_dumper()": lambda raw: raw.adapters.register_dumper(str, TheirDumper),
    "a type with arrays": lambda raw: TypeInfo("theirs", 123456, 123457).register(raw),
}
CURSORS = ("cursor_factory", "server_cursor_factory")


def last_word(server: PostgresServer, raw: Any) -> list[str]:
    """When the server was last sent a statement, and which."""
    return server.psql(
        "SELECT state_change, query_start, query FROM pg_stat_activity"
        f" WHERE pid = {raw.info.backend_pid}"
    )


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_and_taken_back_each_time_it_is_made(
    driver: Driver, connection: Any, shape: Any, name: str
) -> None:
    fresh = as_it_looks(connection)
    assert driver.is_tidy(connection, shape)
    for _ in range(2):
        CHANGES[name](connection)
        assert as_it_looks(connection) != fresh, "this changes nothing"
        assert not driver.is_tidy(connection, shape)
        # As Hygiene.clean() does.
        driver.tidy(connection)
        driver.reshape(connection, shape)
        assert driver.is_tidy(connection, shape)
        assert as_it_looks(connection) == fresh


def test_all_changes_at_once_are_taken_back_without_a_round_trip(
    driver: Driver, connection: Any, shape: Any, server: PostgresServer
) -> None:
    fresh, before = as_it_looks(connection), last_word(server, connection)
    assert before
    for change in CHANGES.values():
        change(connection)
    driver.tidy(connection)
    driver.reshape(connection, shape)
    assert driver.is_tidy(connection, shape)
    assert as_it_looks(connection) == fresh
    assert last_word(server, connection) == before


THERE_AND_BACK: dict[str, tuple[Callable[[Any], object], Callable[[Any], object]]] = {
    name: (CHANGES[name], back)
    for name, back in {
        "autocommit": lambda raw: setattr(raw, "autocommit", True),
        "isolation_level": lambda raw: setattr(raw, "isolation_level", None),
        "read_only": lambda raw: setattr(raw, "read_only", None),
        "deferrable": lambda raw: raw.set_deferrable(None),
        "add_notice_handler()": lambda raw: raw.remove_notice_handler(never),
    }.items()
}


@pytest.mark.parametrize("name", THERE_AND_BACK)
def test_a_change_that_the_borrower_takes_back_is_no_harm(
    driver: Driver, connection: Any, shape: Any, server: PostgresServer, name: str
) -> None:
    fresh, before = as_it_looks(connection), last_word(server, connection)
    for change in THERE_AND_BACK[name]:
        change(connection)
    assert as_it_looks(connection) == fresh
    driver.tidy(connection)
    driver.reshape(connection, shape)
    assert driver.is_tidy(connection, shape)
    assert as_it_looks(connection) == fresh
    assert last_word(server, connection) == before


def test_a_connection_that_is_used_and_not_changed_stays_tidy(
    driver: Driver, connection: Any, shape: Any
) -> None:
    fresh = as_it_looks(connection)
    with connection.transaction():
        connection.execute("SELECT 1, 'a', now()", prepare=True).fetchall()
    connection.execute("DO $$BEGIN RAISE WARNING 'x'; END$$")
    assert driver.is_tidy(connection, shape)
    assert as_it_looks(connection) == fresh


@pytest.mark.parametrize(("name", "dirties"), [(name, name in CURSORS) for name in CHANGES])
def test_what_the_borrowers_own_cursors_executed_may_have_done_anything(
    driver: Driver, connection: Any, shape: Any, name: str, dirties: bool
) -> None:
    CHANGES[name](connection)
    driver.tidy(connection)
    driver.reshape(connection, shape)
    assert bool(driver.session(connection).dirt) is dirties


def test_a_pipeline_that_was_not_left_is_noticed(
    driver: Driver, connection: Any, shape: Any
) -> None:
    with connection.pipeline():
        assert driver.status(connection) is TransactionStatus.IDLE
        assert not driver.is_tidy(connection, shape)
        driver.reshape(connection, shape)
        assert not driver.is_tidy(connection, shape), "nobody but its owner can leave it"
    assert driver.is_tidy(connection, shape)


def test_two_connections_of_one_pool_notice_their_own_changes_only(
    driver: Driver, connection: Any, shape: Any, server: PostgresServer
) -> None:
    with psycopg.connect(**server.connect_kwargs(DATABASE)) as other:
        driver.tidy(other)
        others = driver.shape(other)
        other.adapters.register_loader("text", TheirLoader)
        other.add_notice_handler(never)
        assert not driver.is_tidy(other, others)
        assert driver.is_tidy(connection, shape)
        assert connection.execute("SELECT 'as ever'").fetchone() == ("as ever",)
        assert psycopg.adapters is not connection.adapters
