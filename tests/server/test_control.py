"""pools["default"] and what can be done to a pool, with the server as the witness."""

import threading
from typing import Any

import pytest
from django.db import OperationalError
from django.utils.connection import ConnectionDoesNotExist

from django_psycopg_pooled import OptionsError, PoolClosed, PoolTimeout, pools
from tests.server.databases import Databases
from tests.server.support import (
    Call,
    borrow,
    eventually,
    fill,
    lent_to_a_thread,
    pool_of,
    value,
    wrapper,
)


def test_pools_and_the_wrapper_give_the_same_pool(databases: Databases) -> None:
    connection = databases.add(alias="default")
    assert pools["default"] is connection.pool
    connection.ensure_connection()
    assert pools["default"].snapshot().count("lent") == 1


def test_pools_lists_the_aliases_that_have_one(databases: Databases) -> None:
    databases.add(alias="default")
    pooled, unpooled = databases.add(), databases.add(False)
    stock = databases.add(ENGINE="django.db.backends.postgresql")
    wrong = databases.add({"max_size": -1})
    assert set(pools) == {"default", pooled.alias}
    assert len(pools) == 2
    assert dict(pools)[pooled.alias] is pooled.pool
    assert pooled.alias in pools
    assert unpooled.alias not in pools
    assert stock.alias not in pools
    assert wrong.alias not in set(pools)


def test_an_alias_without_a_pool_is_refused_with_the_reason(databases: Databases) -> None:
    unpooled = databases.add(False)
    with pytest.raises(KeyError) as raised:
        pools[unpooled.alias]
    assert f"{unpooled.alias!r} has no pool" in raised.value.args[0]
    assert "OPTIONS['pool'] must not be False" in raised.value.args[0]
    stock = databases.add(ENGINE="django.db.backends.postgresql")
    with pytest.raises(KeyError, match=r"Its ENGINE is 'django\.db\.backends\.postgresql'"):
        pools[stock.alias]


def test_an_unknown_alias_is_djangos_error() -> None:
    with pytest.raises(ConnectionDoesNotExist):
        pools["no such alias"]


def test_pools_keep_what_a_mapping_promises(databases: Databases) -> None:
    pooled, unpooled = databases.add(), databases.add(False)
    wrong = databases.add({"max_size": -1})
    assert pools.get(pooled.alias) is pooled.pool
    for alias in ("no such alias", unpooled.alias, wrong.alias):
        assert alias not in pools
        assert pools.get(alias) is None
        assert pools.get(alias, "none") == "none"
    no_aliases: list[Any] = [5, None, []]
    assert not [key for key in no_aliases if key in pools]


def test_an_unknown_alias_is_a_key_error_too_in_djangos_words() -> None:
    with pytest.raises(KeyError) as raised:
        pools["no such alias"]
    assert str(raised.value) == "The connection 'no such alias' doesn't exist."


def test_asking_for_a_pool_connects_to_nothing(databases: Databases) -> None:
    pools[databases.add().alias].get_stats()
    assert databases.server.backends() == 0


def test_wait_opens_min_size(databases: Databases) -> None:
    pool = pool_of(databases.add({"min_size": 4}))
    pool.wait(20)
    assert databases.server.backends() == 4
    assert pool.get_stats()["pool_available"] == 4


@pytest.mark.parametrize("num_workers", [3, 0])
def test_wait_for_a_database_that_does_not_exist_fails_at_once_in_the_drivers_words(
    databases: Databases, num_workers: int
) -> None:
    connection = databases.add({"num_workers": num_workers}, NAME="no_such_database")
    with pytest.raises(connection.Database.OperationalError, match="does not exist") as raised:
        pool_of(connection).wait(30)
    assert not isinstance(raised.value, PoolTimeout)


def test_configure_grows_while_running(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    pool = pool_of(connection)
    borrow(connection)
    second = Call(lambda: borrow(wrapper(connection.alias)))
    eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
    pool.configure(max_size=2)
    assert second.outcome() != borrow(connection)
    assert pool.options.max_size == 2


def test_configure_shrinks_on_the_server(databases: Databases) -> None:
    pool = pool_of(databases.add({"max_size": 5}))
    fill(pool, 5)
    assert databases.server.backends() == 5
    pool.configure(max_size=2)
    eventually(lambda: databases.server.backends() == 2)


def test_what_is_lent_above_a_new_max_size_is_closed_when_it_comes_back(
    databases: Databases,
) -> None:
    pool = pool_of(databases.add({"max_size": 3}))
    leases = [pool.checkout() for _ in range(3)]
    pool.configure(max_size=1)
    assert databases.server.backends() == 3
    for lease in leases:
        pool.checkin(lease)
    eventually(lambda: databases.server.backends() == 1)


def test_configure_refuses_everything_wrong_and_changes_nothing(databases: Databases) -> None:
    pool = pool_of(databases.add())
    with pytest.raises(OptionsError) as raised:
        pool.configure(max_size=20, timeout=-1, nam="x", num_workers=1)
    assert len(raised.value.problems) == 3
    assert pool.options.max_size == 10


def test_a_changed_option_holds_for_threads_that_come_later(databases: Databases) -> None:
    connection = databases.add()
    pool_of(connection).configure(max_size=3)
    assert Call(lambda: pools[connection.alias].options.max_size).outcome() == 3


def test_resize_sets_both_sizes(databases: Databases) -> None:
    pool = pool_of(databases.add())
    fill(pool, 1)
    pool.resize(2, 4)
    assert (pool.options.min_size, pool.options.max_size) == (2, 4)
    eventually(lambda: databases.server.backends() == 2)
    pool.resize(3)
    assert (pool.options.min_size, pool.options.max_size) == (3, 3)
    eventually(lambda: databases.server.backends() == 3)


def test_drain_replaces_idle_connections_now_and_lent_ones_on_return(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 4})
    pool = pool_of(connection)
    old = set(fill(pool, 3))
    lent = borrow(connection)
    pool.drain()
    assert value(connection, "SELECT 1") == 1
    eventually(lambda: not set(pids(databases)) & (old - {lent}))
    connection.close()
    eventually(lambda: lent not in pids(databases))
    assert borrow(connection) not in old


def pids(databases: Databases) -> list[int]:
    rows = databases.server.psql("SELECT pid FROM pg_stat_activity WHERE datname = 'tests'")
    return [int(row) for row in rows]


def test_a_paused_pool_lets_requests_wait_until_it_resumes(databases: Databases) -> None:
    connection = databases.add({"timeout": 20})
    pool = pool_of(connection)
    borrow(connection)
    assert pool.pause() is False  # one is lent
    waiting = [Call(lambda: borrow(wrapper(connection.alias))) for _ in range(2)]
    eventually(lambda: pool.get_stats()["requests_waiting"] == 2)
    assert value(connection, "SELECT 1") == 1  # what is lent goes on
    connection.close()
    assert pool.pause(5) is True
    assert pool.snapshot().paused
    assert pool.get_stats()["requests_waiting"] == 2
    pool.resume()
    for call in waiting:
        call.outcome()
    assert not pool.snapshot().paused


def test_pause_returns_when_the_last_loan_has_ended(databases: Databases) -> None:
    connection = databases.add()
    pool = pool_of(connection)
    with lent_to_a_thread(connection.alias):
        pausing = Call(lambda: pool.pause(20))
        eventually(lambda: pool.snapshot().paused)
        assert pausing.is_alive()
    assert pausing.outcome() is True


def test_a_request_that_times_out_on_a_paused_pool_reads_so(databases: Databases) -> None:
    connection = databases.add({"timeout": 0.05})
    pool_of(connection).pause()
    with pytest.raises(OperationalError, match=r"pause\(\) was called and resume\(\) was not"):
        connection.ensure_connection()


def test_check_drops_what_the_server_has_ended(databases: Databases) -> None:
    pool = pool_of(databases.add({"max_size": 3, "min_size": 0}))
    fill(pool, 3)
    assert pool.check() == 0
    databases.server.terminate_backends("tests")
    assert pool.check() > 0
    assert pool.get_stats()["pool_available"] == 0
    assert pool.get_stats()["connections_lost"] == 3


def test_close_ends_idle_connections_now_and_lent_ones_on_return(databases: Databases) -> None:
    connection = databases.add({"max_size": 3})
    pool = pool_of(connection)
    fill(pool, 3)
    lent = borrow(connection)
    pool.close()
    assert pool.closed
    eventually(lambda: pids(databases) == [lent])
    assert value(connection, "SELECT 1") == 1
    connection.close()
    eventually(lambda: pids(databases) == [])
    assert connection.pool is not pool
    assert value(connection, "SELECT 1") == 1


def test_a_closed_pool_lends_nothing(databases: Databases) -> None:
    pool = pool_of(databases.add())
    pool.close()
    with pytest.raises(PoolClosed):
        pool.checkout()


def test_close_sends_those_who_wait_away(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    pool = pool_of(connection)
    borrow(connection)
    waiting = Call(lambda: borrow(wrapper(connection.alias)))
    eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
    pool.close()
    with pytest.raises(OperationalError, match=r"\[P103\]") as raised:
        waiting.outcome()
    assert isinstance(raised.value.__cause__, PoolClosed)


def test_close_pool_leaves_nothing_of_any_alias_of_the_database_on_the_server(
    databases: Databases,
) -> None:
    one, other = databases.add(), databases.add()
    for connection in (one, other):
        fill(pool_of(connection), 3)
    assert databases.server.backends() == 6
    one.close_pool()
    assert databases.server.backends() == 0


def test_the_statistics_have_psycopg_pools_keys_and_true_numbers(databases: Databases) -> None:
    connection = databases.add({"min_size": 1, "max_size": 2})
    pool = pool_of(connection)
    for _ in range(3):
        borrow(connection)
        value(connection, "SELECT pg_sleep(0.01)")
        connection.close()
    stats = pool.get_stats()
    assert set(stats) == {
        "pool_min", "pool_max", "pool_size", "pool_available", "requests_waiting", "requests_num",
        "requests_queued", "requests_wait_ms", "requests_errors", "usage_ms", "returns_bad",
        "connections_num", "connections_ms", "connections_errors", "connections_lost",
        "idle_in_transaction", "reclaimed",
    }  # fmt: skip
    assert stats["pool_max"] == 2
    assert stats["pool_size"] == stats["pool_available"] == databases.server.backends() == 1
    assert stats["requests_num"] == 3
    assert stats["usage_ms"] >= 30
    assert stats["connections_num"] == 1
    assert stats["requests_errors"] == stats["connections_errors"] == 0
    assert pool.pop_stats() == stats
    again = pool.get_stats()
    assert again["requests_num"] == again["usage_ms"] == 0
    assert again["pool_size"] == 1


def test_the_table_names_the_server_process_and_the_thread(databases: Databases) -> None:
    connection = databases.add({"max_size": 5}, alias="default")
    pool = pool_of(connection)
    fill(pool, 2)
    with lent_to_a_thread("default", "web-3") as pid:
        table = pool.as_table()
    title, _, header, *rows = table.splitlines()
    assert title == "Pool 'default': 1 lent, 1 idle, 0 opening of 5; 0 waiting"
    assert header.split()[:3] == ["#", "state", "server"]
    [lent] = [row for row in rows if "web-3" in row]
    assert lent.split()[1:3] == ["lent", str(pid)]
    [idle] = [row for row in rows if row[:1].isdigit() and row is not lent]
    assert idle.split()[1] == "idle"


def test_a_pool_lends_without_django_too(databases: Databases) -> None:
    pool = pool_of(databases.add())
    with pool.connection() as raw, raw.cursor() as cursor:
        cursor.execute("SELECT 7")
        assert cursor.fetchone() == (7,)
    raw = pool.getconn()
    pool.putconn(raw)
    assert pool.snapshot().count("idle") == 1


def test_control_from_many_threads_at_once_keeps_the_books_right(databases: Databases) -> None:
    connection = databases.add({"max_size": 3, "timeout": 20})
    pool = pool_of(connection)
    alias = connection.alias
    stop = threading.Event()

    def query() -> int:
        done = 0
        while not stop.is_set():
            assert value(wrapper(alias), "SELECT 1") == 1
            wrapper(alias).close()
            done += 1
        return done

    clients = [Call(query) for _ in range(4)]
    for size in (1, 3, 2, 3):
        pool.configure(max_size=size, min_size=0)
        pool.drain()
        pool.pause(5)
        pool.resume()
        pool.check()
    stop.set()
    assert all(client.outcome() > 0 for client in clients)
    assert databases.server.backends() <= 3
