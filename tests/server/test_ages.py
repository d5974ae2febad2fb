"""Connections that are too old, or idle for too long, are closed on the server."""

import pytest

from tests.server.databases import Databases
from tests.server.support import borrow, eventually, fill, pool_of, value


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_connection_past_its_lifetime_is_not_lent_again(
    databases: Databases, num_workers: int
) -> None:
    connection = databases.add({"max_lifetime": 0.2, "max_size": 1, "num_workers": num_workers})
    first = borrow(connection)
    connection.close()

    def replaced() -> bool:
        pid = borrow(connection)
        connection.close()
        return pid != first

    eventually(replaced)
    eventually(lambda: databases.server.backends(f"pid = {first}") == 0)


def test_a_connection_past_its_lifetime_is_closed_when_it_is_given_back(
    databases: Databases,
) -> None:
    connection = databases.add({"max_lifetime": 0.1, "min_size": 0})
    borrow(connection)
    pool = pool_of(connection)
    eventually(lambda: pool.snapshot().connections[0].age_s > 0.1)
    assert value(connection, "SELECT 1") == 1  # in use it lives on
    connection.close()
    assert pool.snapshot().size == 0
    eventually(lambda: databases.server.backends() == 0)


def test_an_idle_connection_past_its_lifetime_is_closed_without_a_request(
    databases: Databases,
) -> None:
    connection = databases.add({"max_lifetime": 0.2, "min_size": 0, "max_size": 3})
    fill(pool_of(connection), 3)
    assert databases.server.backends() == 3
    eventually(lambda: databases.server.backends() == 0)


def test_the_connections_of_min_size_are_renewed_without_a_request(databases: Databases) -> None:
    connection = databases.add({"max_lifetime": 0.3, "min_size": 2, "max_size": 2})
    pool = pool_of(connection)
    old = set(fill(pool, 2))
    eventually(lambda: not server_pids(databases) & old and len(server_pids(databases)) == 2)


def server_pids(databases: Databases) -> set[int]:
    rows = databases.server.psql("SELECT pid FROM pg_stat_activity WHERE datname = 'tests'")
    return {int(row) for row in rows}


def test_idle_connections_above_min_size_are_closed_after_max_idle(databases: Databases) -> None:
    connection = databases.add({"max_idle": 0.2, "min_size": 1, "max_size": 5})
    pids = fill(pool_of(connection), 5)
    assert databases.server.backends() == 5
    eventually(lambda: databases.server.backends() == 1)
    assert borrow(connection) == pids[-1]  # the one used last stays


def test_no_connection_of_min_size_is_closed_for_being_idle(databases: Databases) -> None:
    connection = databases.add({"max_idle": 0.05, "min_size": 2, "max_size": 4})
    pids = fill(pool_of(connection), 4)
    eventually(lambda: databases.server.backends() == 2)
    eventually(lambda: all(c.in_state_s > 0.3 for c in pool_of(connection).snapshot().connections))
    assert borrow(connection) in pids
    assert databases.server.backends() == 2


def test_lent_connections_are_not_closed_for_their_age(databases: Databases) -> None:
    connection = databases.add({"max_idle": 0.05, "max_lifetime": 0.05, "min_size": 0})
    first = borrow(connection)
    pool = pool_of(connection)
    eventually(lambda: pool.snapshot().connections[0].age_s > 0.3)
    assert value(connection, "SELECT pg_backend_pid()") == first
