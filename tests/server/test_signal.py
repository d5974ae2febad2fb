"""connection_created: at each checkout, or once a server session."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.db.backends.signals import connection_created

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import borrow, in_thread, pool_of, value, wrapper


class Receiver:
    """Notes for each signal what a user's receiver would find."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.senders: list[type[Any]] = []

    def __call__(self, sender: type[Any], connection: PooledWrapper, **_: object) -> None:
        self.senders.append(sender)
        self.pids.append(value(connection, "SELECT pg_backend_pid()"))
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = pg_catalog")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    connection_created.connect(receiver)
    yield receiver
    connection_created.disconnect(receiver)


def test_it_is_sent_at_every_checkout_with_a_usable_connection(
    databases: Databases, receiver: Receiver
) -> None:
    connection = databases.add()
    pid = borrow(connection)
    value(connection, "SELECT 1")
    assert receiver.pids == [pid]
    connection.close()
    borrow(connection)
    assert receiver.pids == [pid, pid]
    assert set(receiver.senders) == {type(connection)}


def test_it_is_sent_once_a_server_session_if_the_option_says_so(
    databases: Databases, receiver: Receiver
) -> None:
    connection = databases.add({"connection_created": "session"})
    first = borrow(connection)
    connection.close()
    borrow(connection)
    connection.close()
    in_thread(lambda: borrow(wrapper(connection.alias)))
    assert receiver.pids == [first]
    assert value(connection, "SHOW search_path") == "pg_catalog"
    connection.close()
    pool_of(connection).drain()
    second = borrow(connection)
    assert receiver.pids == [first, second]
    assert first != second


def test_each_of_two_sessions_is_announced(databases: Databases, receiver: Receiver) -> None:
    connection = databases.add({"connection_created": "session"})
    first = borrow(connection)
    second = in_thread(lambda: borrow(wrapper(connection.alias)))
    assert receiver.pids == [first, second]


def test_it_may_be_changed_while_running(databases: Databases, receiver: Receiver) -> None:
    connection = databases.add({"connection_created": "session"})
    borrow(connection)
    connection.close()
    pool_of(connection).configure(connection_created="checkout")
    borrow(connection)
    assert len(receiver.pids) == 2


def test_without_a_pool_it_is_sent_for_each_connection(
    databases: Databases, receiver: Receiver
) -> None:
    connection = databases.add(False)
    pids = [borrow(connection)]
    connection.close()
    pids.append(borrow(connection))
    assert receiver.pids == pids


def test_it_is_not_sent_for_a_connection_that_could_not_be_had(
    databases: Databases, receiver: Receiver
) -> None:
    connection = databases.add(NAME="no_such_database")
    with pytest.raises(OperationalError):
        connection.ensure_connection()
    assert receiver.pids == []


def test_a_receiver_that_raises_fails_the_query_and_loses_no_connection(
    databases: Databases,
) -> None:
    def refuse(**_: object) -> None:
        raise ZeroDivisionError

    connection = databases.add({"max_size": 1, "timeout": 5})
    connection_created.connect(refuse)
    try:
        with pytest.raises(ZeroDivisionError):
            connection.ensure_connection()
    finally:
        connection_created.disconnect(refuse)
    connection.close()
    assert value(connection, "SELECT 1") == 1
