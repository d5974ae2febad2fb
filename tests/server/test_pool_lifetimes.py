"""How long a pool lives: as its configuration, not as the threads that used it."""

import gc
import weakref

from django.db import connections

from django_psycopg_pooled import pools
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import borrow, eventually, fill, in_thread, pool_of, value, wrapper


def used_pool(
    databases: Databases, alias: str | None = None
) -> tuple[str, weakref.ref[DatabasePool]]:
    """An alias with two idle connections; nothing in here holds its pool."""
    connection = databases.add(alias=alias)
    fill(pool_of(connection), 2)
    return connection.alias, weakref.ref(pool_of(connection))


def is_gone(pool: weakref.ref[DatabasePool]) -> bool:
    gc.collect()
    return pool() is None


def delete(alias: str) -> None:
    del connections[alias]
    del connections.settings[alias]


def test_the_pool_of_an_alias_survives_the_threads_that_used_it(databases: Databases) -> None:
    alias = databases.add().alias
    pids = {in_thread(lambda: borrow(wrapper(alias))) for _ in range(3)}
    del connections[alias]
    gc.collect()
    assert in_thread(lambda: borrow(wrapper(alias))) in pids
    assert len(pids) == 1
    assert databases.server.backends() == 1


def test_a_changed_name_releases_the_pool_of_the_old_one(databases: Databases) -> None:
    alias, old = used_pool(databases)
    databases.server.create_database("renamed")
    try:
        wrapper(alias).settings_dict["NAME"] = "renamed"
        assert value(wrapper(alias), "SELECT current_database()") == "renamed"
        eventually(lambda: is_gone(old))
        eventually(lambda: databases.server.backends("datname = 'tests'") == 0)
        wrapper(alias).close()
        wrapper(alias).close_pool()
    finally:
        databases.server.psql('DROP DATABASE "renamed"')


def test_the_pool_of_a_deleted_alias_is_released(databases: Databases) -> None:
    databases.add()
    alias, pool = used_pool(databases)
    assert databases.server.backends() == 2
    delete(alias)
    # Nothing tells the package of it: it looks when a pool is next made or asked for.
    assert borrow(databases.add()) > 0
    eventually(lambda: is_gone(pool))
    eventually(lambda: databases.server.backends() == 1)


def test_a_hundred_temporary_configurations_leave_no_pool(databases: Databases) -> None:
    keeper = databases.add()
    borrow(keeper)
    before = len(pools.all())
    seen: list[weakref.ref[DatabasePool]] = []
    for number in range(100):
        alias = f"temporary{number}"
        connection = databases.add({"num_workers": 0}, alias=alias)
        assert value(connection, "SELECT 1") == 1
        seen.append(weakref.ref(pool_of(connection)))
        connection.close()
        del connection
        delete(alias)
    assert value(databases.add(), "SELECT 1") == 1
    eventually(lambda: gc.collect() >= 0 and not any(ref() for ref in seen))
    eventually(lambda: databases.server.backends() <= 2)
    assert len(pools.all()) <= before + 1


def test_a_copy_with_other_options_takes_its_pool_with_it(databases: Databases) -> None:
    connection = databases.add()
    borrow(connection)

    def use_a_copy() -> weakref.ref[DatabasePool]:
        copy = connection.copy()
        assert isinstance(copy, PooledWrapper)
        copy.settings_dict["OPTIONS"]["application_name"] = "copy"
        value(copy, "SELECT 1")
        copy.close()
        return weakref.ref(pool_of(copy))

    pool = use_a_copy()
    eventually(lambda: is_gone(pool))
    eventually(lambda: databases.server.backends() == 1)
    assert value(connection, "SELECT 1") == 1


def test_the_pool_of_a_configured_alias_is_held_without_a_wrapper(databases: Databases) -> None:
    alias, pool = used_pool(databases)
    del connections[alias]
    gc.collect()
    assert pool() is not None
    assert pools[alias] is pool()


def test_a_pool_that_is_released_while_it_lends_ends_with_the_loan(databases: Databases) -> None:
    connection = databases.add()
    first = borrow(connection)
    pool = weakref.ref(pool_of(connection))
    connection.settings_dict["OPTIONS"]["application_name"] = "changed"
    assert connection.pool is not pool()
    assert value(connection, "SELECT pg_backend_pid()") == first
    connection.close()
    eventually(lambda: is_gone(pool))
    eventually(lambda: databases.server.backends() == 0)
