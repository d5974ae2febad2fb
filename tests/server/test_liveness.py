"""Connections that died, or only seem to: no query meets them."""

import time
from typing import Any

import pytest
from django.db import OperationalError

from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.driver import DRIVER
from tests.server.databases import Databases
from tests.server.support import Call, borrow, eventually, fill, pool_of, value, wrapper


@pytest.mark.parametrize("num_workers", [3, 0])
@pytest.mark.parametrize("count", [1, 10])
def test_idle_connections_that_the_server_ended_reach_no_query(
    databases: Databases, count: int, num_workers: int
) -> None:
    connection = databases.add({"max_size": 10, "num_workers": num_workers})
    pool = pool_of(connection)
    dead = fill(pool, count)
    assert databases.server.terminate_backends("tests") == count
    began = time.monotonic()
    assert value(connection, "SELECT pg_backend_pid()") not in dead
    assert time.monotonic() - began < 5
    assert pool.get_stats()["connections_lost"] == count
    assert pool.get_stats()["requests_errors"] == 0


def test_one_dead_among_many_costs_only_itself(databases: Databases) -> None:
    connection = databases.add({"max_size": 5, "min_size": 0})
    pool = pool_of(connection)
    *others, last = fill(pool, 5)
    end(databases.server, last)
    assert borrow(connection) in others
    stats = pool.get_stats()
    assert stats["connections_lost"] == 1
    assert stats["pool_size"] == 4


def end(server: PostgresServer, pid: int) -> None:
    server.psql(f"SELECT pg_terminate_backend({pid}, 5000)")


def test_a_restart_of_the_server_fails_no_request(databases: Databases) -> None:
    connection = databases.add({"max_size": 10})
    pool = pool_of(connection)
    dead = fill(pool, 10)
    databases.server.restart()
    threads = [Call(lambda: value(wrapper(connection.alias), "SELECT 1")) for _ in range(5)]
    assert [thread.outcome() for thread in threads] == [1] * 5
    assert borrow(connection) not in dead
    assert pool.get_stats()["connections_lost"] == 10
    assert pool.get_stats()["requests_errors"] == 0


def test_a_request_waits_for_a_server_that_comes_back(databases: Databases) -> None:
    connection = databases.add({"timeout": 30, "min_size": 0, "max_size": 3})
    pool = pool_of(connection)
    fill(pool, 3)
    databases.server.stop()
    try:
        request = Call(lambda: value(wrapper(connection.alias), "SELECT 1"))
        eventually(lambda: pool.get_stats()["connections_errors"] >= 1)
        assert request.is_alive()
    finally:
        databases.server.start()
    assert request.outcome() == 1
    assert pool.snapshot().last_failure is None


def test_a_connection_that_dies_in_use_fails_that_query_alone(databases: Databases) -> None:
    connection = databases.add()
    pid = borrow(connection)
    end(databases.server, pid)
    with pytest.raises(OperationalError):
        value(connection, "SELECT 1")
    connection.close()
    assert value(connection, "SELECT 1") == 1
    assert pool_of(connection).get_stats()["returns_bad"] == 1


def test_a_crash_of_the_server_is_survived(databases: Databases) -> None:
    connection = databases.add({"max_size": 3})
    fill(pool_of(connection), 3)
    databases.server.stop("immediate")
    databases.server.start()
    assert value(connection, "SELECT 1") == 1


def listening(raw: Any) -> None:
    with raw.cursor() as cursor:
        cursor.execute("LISTEN news")


def test_a_notification_on_an_idle_connection_is_not_its_death(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "configure": listening})
    first = borrow(connection)
    connection.close()
    for _ in range(3):
        databases.server.psql("NOTIFY news", "tests")
        assert borrow(connection) == first
        connection.close()
    assert pool_of(connection).get_stats()["connections_lost"] == 0


def test_a_changed_setting_that_the_server_reports_is_not_a_death(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    first = borrow(connection)
    connection.close()
    report = "SELECT setting FROM pg_settings WHERE name = 'DateStyle'"
    [before] = databases.server.psql(report, "tests")
    # The idle session is told of the new value as soon as the server has read it.
    databases.server.configure({"DateStyle": "german"})
    databases.server.reload()
    eventually(lambda: databases.server.psql(report, "tests") != [before])
    assert borrow(connection) == first
    assert value(connection, "SELECT 1") == 1
    connection.close()
    databases.server.configure({"DateStyle": before})
    databases.server.reload()
    eventually(lambda: databases.server.psql(report, "tests") == [before])
    assert borrow(connection) == first


class Checks:
    """A user's check that counts its calls, and refuses when told to."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.refused: set[int] = set()

    def __call__(self, raw: Any) -> None:
        pid = DRIVER.server_pid(raw)
        self.pids.append(pid)
        if pid in self.refused:
            raise ValueError("unfit")


def test_a_connection_idle_for_longer_than_check_idle_is_asked_before_it_is_lent(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "check_idle": 0.05})
    pool = pool_of(connection)
    first = borrow(connection)
    connection.close()
    before = last_word(databases)
    eventually(lambda: pool.snapshot().connections[0].in_state_s > 0.06)
    assert borrow(connection) == first
    assert last_word(databases) > before


def last_word(databases: Databases) -> str:
    [at] = databases.server.psql("SELECT query_start FROM pg_stat_activity WHERE datname = 'tests'")
    return at


def test_a_connection_idle_for_less_than_check_idle_is_not_asked(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "check_idle": 60})
    borrow(connection)
    connection.close()
    before = last_word(databases)
    borrow(connection)
    assert last_word(databases) == before


def test_a_check_of_the_user_runs_at_every_checkout(databases: Databases) -> None:
    checks = Checks()
    connection = databases.add({"max_size": 1, "check": checks})
    first = borrow(connection)
    checks.pids.clear()
    for _ in range(3):
        connection.close()
        assert borrow(connection) == first
    assert checks.pids == [first] * 3


def test_a_connection_that_the_users_check_refuses_is_replaced(databases: Databases) -> None:
    checks = Checks()
    connection = databases.add({"max_size": 1, "check": checks, "timeout": 10})
    first = borrow(connection)
    connection.close()
    checks.refused.add(first)
    assert borrow(connection) != first
    assert pool_of(connection).get_stats()["connections_lost"] == 1
    eventually(lambda: databases.server.backends(f"pid = {first}") == 0)


def test_a_keepalive_checks_idle_connections_in_the_background(databases: Databases) -> None:
    checks = Checks()
    connection = databases.add({"max_size": 2, "keepalive": 0.1, "check": checks, "min_size": 0})
    pids = fill(pool_of(connection), 2)
    checks.pids.clear()
    eventually(lambda: set(checks.pids) == set(pids))
    assert pool_of(connection).snapshot().count("lent") == 0


def test_a_dead_idle_connection_of_min_size_is_replaced_without_a_request(
    databases: Databases,
) -> None:
    connection = databases.add({"min_size": 2, "max_size": 2, "keepalive": 0.1})
    pool = pool_of(connection)
    pool.wait(10)
    databases.server.terminate_backends("tests")
    eventually(lambda: databases.server.backends("datname = 'tests'") == 2)
    eventually(lambda: pool.get_stats()["pool_available"] == 2)
