"""Sessions that a project sets up by itself stay so, whatever borrowers do to them."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.backends.signals import connection_created

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import borrow, pool_of, value

SET = "SET work_mem = '5MB'"
TEMPORARY = "CREATE TEMP TABLE theirs (a int)"
PREPARE = "PREPARE theirs AS SELECT 1"
LOCK = "SELECT pg_advisory_lock(1)"


def run(raw: Any, *statements: str) -> None:
    with raw.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def used_and_given_back(connection: PooledWrapper, *statements: str) -> None:
    connection.ensure_connection()
    run(connection.connection, *statements)
    connection.close()


def set_up(raw: Any) -> None:
    """What cannot be done twice in one session."""
    run(raw, "CREATE TEMP TABLE mine AS SELECT 7 AS a", "PREPARE mine AS SELECT 8", "LISTEN mine")


def is_set_up(connection: PooledWrapper) -> bool:
    channels = value(connection, "SELECT array_agg(c) FROM pg_listening_channels() AS c")
    seen = value(connection, "SELECT a FROM mine"), value(connection, "EXECUTE mine"), channels
    return seen == (7, 8, ["mine"])


@pytest.fixture
def receiver() -> Iterator[None]:
    def receive(connection: PooledWrapper, **_: Any) -> None:
        set_up(connection.connection)

    connection_created.connect(receive)
    yield
    connection_created.disconnect(receive)


@pytest.mark.parametrize("reset", ["dirty", "always"])
def test_what_configure_made_is_there_for_every_borrower_of_the_same_session(
    databases: Databases, reset: str
) -> None:
    connection = databases.add({"max_size": 1, "reset": reset, "configure": set_up})
    session = borrow(connection)
    for left in (SET, TEMPORARY, PREPARE, LOCK, "LISTEN theirs", "SET ROLE NONE"):
        used_and_given_back(connection, left)
        assert is_set_up(connection), left
        assert borrow(connection) == session, left
        assert value(connection, "SHOW work_mem") == "4MB"


@pytest.mark.parametrize("reset", ["dirty", "always"])
@pytest.mark.parametrize("release", ["request", "transaction"])
def test_so_is_what_a_receiver_made_that_is_told_of_sessions(
    databases: Databases, receiver: None, reset: str, release: str
) -> None:
    options = {"reset": reset, "release": release, "connection_created": "session"}
    connection = databases.add({"max_size": 1, **options})
    session = borrow(connection)
    for left in (SET, TEMPORARY, PREPARE, LOCK, "LISTEN theirs"):
        used_and_given_back(connection, left)
        assert is_set_up(connection), left
        assert borrow(connection) == session, left


def test_what_get_new_connection_of_a_subclass_set_is_never_lost(databases: Databases) -> None:
    """It cannot be done again: the connection goes, and the next one is set up."""
    connection = databases.add({"max_size": 1}, ENGINE="tests.server.backends.connecting")
    session = borrow(connection)
    for left in (SET, "SET ROLE pg_monitor", TEMPORARY):
        used_and_given_back(connection, left)
        assert value(connection, "SHOW search_path") == "shop, public", left
        assert borrow(connection) != session, left
        connection.close()
        session = borrow(connection)
    used_and_given_back(connection, "SELECT 1")
    assert borrow(connection) == session


def test_init_connection_state_of_a_subclass_is_called_for_each_loan(databases: Databases) -> None:
    connection = databases.add({"max_size": 1}, ENGINE="tests.server.backends.initializing")
    for _ in range(3):
        assert value(connection, "SHOW cpu_tuple_cost") == "7"
        connection.close()
    assert pool_of(connection).get_stats()["connections_num"] == 1
