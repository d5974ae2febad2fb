"""What every driver adapter promises the pool, asked of each on a real server."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.postgres import PostgresServer
from django_psycopg_pooled import errors
from django_psycopg_pooled.drivers.protocol import Driver, TransactionStatus
from tests.server.support import DATABASE, eventually

ADAPTERS = {"psycopg": "psycopg3.PsycopgDriver", "psycopg2": "psycopg2.Psycopg2Driver"}


@pytest.fixture(params=ADAPTERS)
def name(request: pytest.FixtureRequest) -> str:
    """The driver's module; hidden ones are not asked for."""
    driver: str = request.param
    try:
        importlib.import_module(driver)
    except ImportError as error:
        pytest.skip(str(error))
    return driver


@pytest.fixture
def driver(name: str) -> Driver:
    module, _, kind = ADAPTERS[name].partition(".")
    found = importlib.import_module(f"django_psycopg_pooled.drivers.{module}")
    adapter: Driver = getattr(found, kind)()
    return adapter


def connect(name: str, driver: Driver, server: PostgresServer, **changes: Any) -> Any:
    kwargs = driver.connect_params({**server.connect_kwargs(DATABASE), **changes})
    return importlib.import_module(name).connect(**kwargs)


@pytest.fixture
def connection(name: str, driver: Driver, server: PostgresServer) -> Iterator[Any]:
    """A connection as the pool has it: tidy."""
    connection = connect(name, driver, server)
    driver.tidy(connection)
    yield connection
    connection.close()


@pytest.fixture
def shape(driver: Driver, connection: Any) -> Any:
    """What it looks like with nothing changed on it."""
    return driver.shape(connection)


def run(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def end(driver: Driver, connection: Any, server: PostgresServer) -> None:
    server.psql(f"SELECT pg_terminate_backend({driver.server_pid(connection)}, 5000)")


def test_it_names_itself_and_its_exceptions(name: str, driver: Driver) -> None:
    operational_error = importlib.import_module(name).OperationalError
    assert driver.name == name
    for ours in ("PoolTimeout", "TooManyRequests", "PoolClosed"):
        kind = getattr(driver, ours)
        assert issubclass(kind, operational_error)
        assert issubclass(kind, getattr(errors, ours))
        assert str(kind("the text")) == "the text"


def test_a_new_connection_is_tidied_into_autocommit(
    name: str, driver: Driver, server: PostgresServer
) -> None:
    connection = connect(name, driver, server)
    assert not connection.autocommit
    driver.tidy(connection)
    assert connection.autocommit
    shape = driver.shape(connection)
    assert driver.is_tidy(connection, shape)
    run(connection, "SELECT 1")
    assert driver.is_tidy(connection, shape)
    connection.autocommit = False
    assert not driver.is_tidy(connection, shape)
    driver.tidy(connection)
    assert driver.is_tidy(connection, shape)
    driver.close(connection)
    assert not driver.is_tidy(connection, shape)
    assert driver.status(connection) is TransactionStatus.UNKNOWN


@pytest.mark.parametrize(
    ("sql", "status"),
    [("SELECT 1", TransactionStatus.INTRANS), ("SELECT 1/0", TransactionStatus.INERROR)],
)
def test_an_open_or_failed_transaction_is_seen_and_rolled_back(
    name: str,
    driver: Driver,
    connection: Any,
    shape: Any,
    sql: str,
    status: TransactionStatus,
) -> None:
    connection.autocommit = False
    with contextlib.suppress(importlib.import_module(name).DataError):
        run(connection, sql)
    assert driver.status(connection) is status
    assert not driver.is_tidy(connection, shape)
    driver.tidy(connection)
    assert driver.status(connection) is TransactionStatus.IDLE
    assert connection.autocommit
    assert driver.is_tidy(connection, shape)


def test_a_transaction_opened_by_sql_is_seen_too(
    driver: Driver, connection: Any, shape: Any
) -> None:
    run(connection, "BEGIN")
    assert not driver.is_tidy(connection, shape)
    driver.tidy(connection)
    assert driver.is_tidy(connection, shape)


def test_the_watch_sees_nothing_on_a_quiet_connection(driver: Driver, connection: Any) -> None:
    watch = driver.watch(connection)
    assert not watch(0)
    run(connection, "SELECT 1")
    assert not watch(0)


def test_a_notification_is_seen_absorbed_and_no_harm(
    driver: Driver, connection: Any, server: PostgresServer
) -> None:
    watch = driver.watch(connection)
    run(connection, "LISTEN news")
    server.psql("NOTIFY news", DATABASE)
    eventually(lambda: watch(0))
    driver.absorb(connection)
    assert not watch(0)
    driver.check(connection)


def test_the_end_of_the_session_is_seen_and_absorbing_it_raises(
    name: str, driver: Driver, connection: Any, shape: Any, server: PostgresServer
) -> None:
    watch = driver.watch(connection)
    end(driver, connection, server)
    eventually(lambda: watch(0))

    def absorb_all() -> None:
        while watch(0):  # first the server's last words, then the end
            driver.absorb(connection)

    with pytest.raises(importlib.import_module(name).Error):
        absorb_all()
    assert not driver.is_tidy(connection, shape)


def test_a_check_of_a_dead_connection_raises_and_closing_it_does_not(
    name: str, driver: Driver, connection: Any, shape: Any, server: PostgresServer
) -> None:
    driver.check(connection)
    assert driver.is_tidy(connection, shape), "the check left a transaction"
    end(driver, connection, server)
    with pytest.raises(importlib.import_module(name).Error):
        driver.check(connection)
    driver.close(connection)
    driver.close(connection)


def test_the_server_pid_is_the_servers(driver: Driver, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone() == (driver.server_pid(connection),)


@pytest.mark.parametrize(
    ("changes", "permanent"),
    [
        ({"password": "wrong"}, True),
        ({"dbname": "no such database"}, True),
        ({"no_such_option": 1}, True),
        ({"port": 1}, False),
    ],
)
def test_refusals_are_told_from_outages(
    name: str, driver: Driver, server: PostgresServer, changes: dict[str, Any], permanent: bool
) -> None:
    with pytest.raises(importlib.import_module(name).Error) as caught:
        connect(name, driver, server, **changes)
    assert driver.is_permanent(caught.value) is permanent


def test_a_role_that_may_not_log_in_is_a_refusal(
    name: str, driver: Driver, server: PostgresServer
) -> None:
    server.psql("CREATE ROLE nobody_logs_in PASSWORD 'x'")
    try:
        with pytest.raises(importlib.import_module(name).Error) as caught:
            connect(name, driver, server, user="nobody_logs_in", password="x")
        assert driver.is_permanent(caught.value)
    finally:
        server.psql("DROP ROLE nobody_logs_in")
