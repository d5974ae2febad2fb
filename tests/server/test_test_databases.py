"""Creating, cloning and dropping test databases while pools hold connections to them."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import (
    Call,
    borrow,
    eventually,
    fill,
    in_thread,
    lent_to_a_thread,
    pool_of,
    value,
    wrapper,
)


@pytest.fixture
def connection(databases: Databases) -> Iterator[PooledWrapper]:
    """An alias whose test database exists, with idle connections to it."""
    connection = databases.add({"max_size": 5})
    fill(pool_of(connection), 2)
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    fill(pool_of(connection), 3)
    yield connection
    if connection.settings_dict["NAME"] == "test_tests":
        connection.creation.destroy_test_db("tests", verbosity=0)
    for name in found(databases):
        databases.server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


def found(databases: Databases) -> list[str]:
    return databases.server.psql(
        r"SELECT datname FROM pg_database WHERE datname LIKE 'test\_%' ORDER BY datname"
    )


def sessions_in(databases: Databases, database: str) -> int:
    return databases.server.backends(f"datname = '{database}'")


def test_creation_switches_the_alias_to_the_test_database(
    databases: Databases, connection: PooledWrapper
) -> None:
    assert value(connection, "SELECT current_database()") == "test_tests"
    assert in_thread(lambda: value(wrapper(connection.alias), "SELECT current_database()")) == (
        "test_tests"
    )
    eventually(lambda: sessions_in(databases, "tests") == 0)


def test_destruction_ends_idle_connections_and_switches_back(
    databases: Databases, connection: PooledWrapper
) -> None:
    eventually(
        lambda: sessions_in(databases, "test_tests") == 4
    )  # this thread's, which create left
    connection.creation.destroy_test_db("tests", verbosity=0)
    assert found(databases) == []
    assert value(connection, "SELECT current_database()") == "tests"


def test_clones_are_made_while_connections_are_idle(
    databases: Databases, connection: PooledWrapper
) -> None:
    for suffix in ("1", "2"):
        fill(pool_of(connection), 3)
        connection.creation.clone_test_db(suffix, verbosity=0)
    assert found(databases) == ["test_tests", "test_tests_1", "test_tests_2"]
    for suffix in ("1", "2"):
        connection.creation.destroy_test_db(suffix=suffix, verbosity=0)
    assert found(databases) == ["test_tests"]
    assert value(connection, "SELECT current_database()") == "test_tests"


def test_clones_are_made_again_over_old_ones(
    databases: Databases, connection: PooledWrapper
) -> None:
    connection.creation.clone_test_db("1", verbosity=0)
    connection.creation.clone_test_db("1", verbosity=0)
    assert found(databases) == ["test_tests", "test_tests_1"]


def test_other_aliases_and_copies_of_the_database_are_no_hindrance(
    databases: Databases, connection: PooledWrapper
) -> None:
    other = databases.add({"max_size": 4}, NAME="test_tests")
    fill(pool_of(other), 4)
    copy = connection.copy()
    assert isinstance(copy, PooledWrapper)
    copy.settings_dict["OPTIONS"]["application_name"] = "copy"
    borrow(copy)
    copy.close()
    assert sessions_in(databases, "test_tests") >= 5
    connection.creation.clone_test_db("1", verbosity=0)
    assert "test_tests_1" in found(databases)
    fill(pool_of(other), 4)
    connection.creation.destroy_test_db("tests", verbosity=0)
    assert "test_tests" not in found(databases)


def other_addresses(databases: Databases) -> list[dict[str, Any]]:
    """The server's, by other words than the fixture's."""
    server = databases.server
    return [
        {"HOST": "localhost"},
        {"HOST": f"{server.host},{server.host}", "PORT": f"{server.port},{server.port}"},
        {"HOST": str(server.data.parent)},
    ]


def test_pools_that_reach_the_database_by_another_address_are_no_hindrance(
    databases: Databases, connection: PooledWrapper
) -> None:
    others = [databases.add(NAME="test_tests", **entry) for entry in other_addresses(databases)]
    for other in others:
        fill(pool_of(other), 1)
    connection.creation.clone_test_db("1", verbosity=0)
    clones = [databases.add(NAME="test_tests_1", **entry) for entry in other_addresses(databases)]
    for other in others + clones:
        fill(pool_of(other), 1)
    connection.creation.destroy_test_db(suffix="1", verbosity=0)
    connection.creation.destroy_test_db("tests", verbosity=0)
    assert found(databases) == []


def test_a_pool_of_another_database_stays_open_meanwhile(
    databases: Databases, connection: PooledWrapper
) -> None:
    other = databases.add()
    pid = borrow(other)
    other.close()
    connection.creation.clone_test_db("1", verbosity=0)
    connection.creation.destroy_test_db(suffix="1", verbosity=0)
    assert borrow(other) == pid


def test_wrappers_of_other_threads_are_no_hindrance(
    databases: Databases, connection: PooledWrapper
) -> None:
    alias = connection.alias
    used, done = threading.Event(), threading.Event()

    def stay() -> None:
        borrow(wrapper(alias))
        wrapper(alias).close()
        used.set()
        done.wait(30)

    call = Call(stay)
    assert used.wait(30)
    connection.creation.clone_test_db("1", verbosity=0)
    connection.creation.destroy_test_db("tests", verbosity=0)
    done.set()
    call.outcome()
    assert found(databases) == ["test_tests_1"]


def test_a_connection_lent_to_a_thread_hinders_as_without_a_pool_and_then_no_more(
    databases: Databases, connection: PooledWrapper, capsys: pytest.CaptureFixture[str]
) -> None:
    with lent_to_a_thread(connection.alias), pytest.raises(SystemExit):
        connection.creation.clone_test_db("1", verbosity=0)
    assert "being accessed by other users" in capsys.readouterr().err
    # What was lent then came back to a pool that is closed, which leaves nothing on the server.
    connection.creation.clone_test_db("1", verbosity=0)
    assert "test_tests_1" in found(databases)


def test_a_pool_with_min_size_does_not_refill_under_the_creation(databases: Databases) -> None:
    connection = databases.add({"min_size": 4, "max_size": 4})
    borrow(connection)
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        for suffix in ("1", "2"):
            borrow(connection)  # its pool begins to open four
            connection.creation.clone_test_db(suffix, verbosity=0)
            connection.creation.destroy_test_db(suffix=suffix, verbosity=0)
    finally:
        connection.creation.destroy_test_db("tests", verbosity=0)
    assert found(databases) == []


def test_a_test_database_can_be_kept(databases: Databases, connection: PooledWrapper) -> None:
    connection.creation.destroy_test_db("tests", verbosity=0, keepdb=True)
    assert found(databases) == ["test_tests"]
    connection.creation.create_test_db(verbosity=0, keepdb=True)
    assert value(connection, "SELECT current_database()") == "test_tests"


def test_a_template_that_another_alias_has_idle_connections_to_can_be_copied(
    databases: Databases,
) -> None:
    databases.server.create_database("pattern")
    try:
        databases.server.psql("CREATE TABLE from_pattern (n int)", "pattern")
        pattern = databases.add(NAME="pattern", HOST="localhost")
        assert value(pattern, "SELECT 1") == 1
        pattern.close()
        connection = databases.add(TEST={"TEMPLATE": "pattern"})
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        assert value(connection, "SELECT count(*) FROM from_pattern") == 0
        connection.creation.destroy_test_db("tests", verbosity=0)
        pattern.close_pool()
    finally:
        databases.server.psql('DROP DATABASE "pattern" WITH (FORCE)')
        databases.server.psql('DROP DATABASE IF EXISTS "test_tests" WITH (FORCE)')
