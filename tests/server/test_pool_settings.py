"""What OPTIONS["pool"] means."""

import threading
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from django_psycopg_pooled import pools
from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.integration.driver import DRIVER
from tests.server.databases import Databases
from tests.server.support import borrow, eventually, in_thread, pool_of, value


def test_engine_alone_gives_a_pool_with_the_defaults(databases: Databases) -> None:
    connection = databases.add()
    assert value(connection, "SELECT 40 + 2") == 42
    options = pool_of(connection).options
    assert (options.min_size, options.max_size, options.timeout) == (1, 10, 30.0)
    assert pool_of(connection).name == connection.alias


@pytest.mark.parametrize("pool", [True, None, {}])
def test_true_none_and_an_empty_dict_mean_the_defaults(databases: Databases, pool: object) -> None:
    connection = databases.add(pool)
    first = borrow(connection)
    connection.close()
    assert borrow(connection) == first
    assert pool_of(connection).options.max_size == 10


def test_false_means_the_stock_backends_connection_of_its_own(databases: Databases) -> None:
    connection = databases.add(False)
    first = borrow(connection)
    assert connection.pool is None
    connection.close()
    eventually(lambda: databases.server.backends() == 0)
    assert borrow(connection) != first


def test_false_with_a_max_age_keeps_the_connection_as_stock_does(databases: Databases) -> None:
    connection = databases.add(False, CONN_MAX_AGE=None)
    first = borrow(connection)
    connection.close_if_unusable_or_obsolete()
    assert borrow(connection) == first
    assert connection.pool is None


def test_false_without_a_max_age_closes_the_connection_at_the_end_of_a_request(
    databases: Databases,
) -> None:
    connection = databases.add(False, CONN_MAX_AGE=0)
    borrow(connection)
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is None
    eventually(lambda: databases.server.backends() == 0)


def test_false_needs_no_pool_to_be_closed(databases: Databases) -> None:
    connection = databases.add(False)
    connection.close_pool()
    assert value(connection, "SELECT 1") == 1


def checked_by_psycopg_pool() -> dict[str, Any]:
    if DRIVER.name != "psycopg":
        return {}
    from psycopg_pool import ConnectionPool

    return {"check": ConnectionPool.check_connection}


def test_the_dict_of_djangos_own_pool_works_unchanged(databases: Databases) -> None:
    configured: list[object] = []
    connection = databases.add(
        {
            "min_size": 2,
            "max_size": 4,
            "timeout": 10,
            "max_waiting": 5,
            "max_lifetime": 1800.0,
            "max_idle": 300,
            "reconnect_timeout": 60,
            "reconnect_failed": None,
            "num_workers": 2,
            "name": "main",
            "configure": configured.append,
            "reset": None,
            **checked_by_psycopg_pool(),
        }
    )
    assert value(connection, "SELECT 1") == 1
    pool = pool_of(connection)
    pool.wait(10)
    eventually(lambda: databases.server.backends() == 2)
    assert len(configured) == 2
    assert pool.name == "main"
    assert pool.get_stats()["pool_max"] == 4
    connection.close()
    assert value(connection, "SELECT 1") == 1


def test_min_size_alone_is_also_the_most_as_in_psycopg_pool(databases: Databases) -> None:
    assert pool_of(databases.add({"min_size": 3})).options.max_size == 3


def test_the_pools_own_dict_is_left_as_it_was(databases: Databases) -> None:
    given = {"max_size": 3}
    connection = databases.add(given)
    borrow(connection)
    assert given == {"max_size": 3}
    assert connection.settings_dict["OPTIONS"]["pool"] is given


def test_two_aliases_of_one_database_have_two_pools(databases: Databases) -> None:
    one, other = databases.add(), databases.add()
    assert pool_of(one) is not pool_of(other)
    assert borrow(one) != borrow(other)


def test_all_threads_share_the_pool_of_an_alias(databases: Databases) -> None:
    connection = databases.add()
    pool = pool_of(connection)
    assert in_thread(lambda: pools[connection.alias]) is pool


def test_threads_that_ask_first_at_the_same_time_get_one_pool(databases: Databases) -> None:
    alias = databases.add().alias
    barrier = threading.Barrier(8)
    found: list[object] = []

    def ask() -> None:
        barrier.wait(10)
        found.append(pools[alias])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_everything_wrong_is_said_at_once_with_the_nearest_name(databases: Databases) -> None:
    connection = databases.add({"max_sise": 5, "min_size": -1, "timeout": "soon", "open": True})
    with pytest.raises(ImproperlyConfigured) as raised:
        connection.ensure_connection()
    text = str(raised.value)
    assert f"DATABASES[{connection.alias!r}]['OPTIONS']['pool']" in text
    assert "'max_sise' is not a pool option; did you mean 'max_size'?" in text
    assert "min_size is -1; it must be a whole number of connections from 0 to 10000." in text
    assert "timeout is 'soon'" in text
    assert "'open' is an option of psycopg_pool that has no place here" in text
    assert isinstance(raised.value.__cause__, OptionsError)
    assert len(raised.value.__cause__.problems) == 4


def test_wrong_options_are_refused_at_the_first_use_and_not_before(databases: Databases) -> None:
    connection = databases.add({"max_size": 0})
    assert connections[connection.alias] is connection
    with pytest.raises(ImproperlyConfigured, match="max_size is 0"):
        connection.cursor()
    with pytest.raises(ImproperlyConfigured, match="max_size is 0"):
        pools[connection.alias]
    assert databases.server.backends() == 0


def test_a_pool_that_is_neither_true_nor_false_nor_a_dict_is_refused(databases: Databases) -> None:
    connection = databases.add("yes")
    with pytest.raises(ImproperlyConfigured, match="is 'yes'; it must be True, False or a dict"):
        connection.ensure_connection()


def test_hooks_may_be_dotted_paths(databases: Databases) -> None:
    connection = databases.add({"check": f"{__name__}.refuse_nothing", "check_idle": 0})
    borrow(connection)
    connection.close()
    borrow(connection)
    assert CHECKED


CHECKED: list[object] = []


def refuse_nothing(connection: object) -> None:
    CHECKED.append(connection)
