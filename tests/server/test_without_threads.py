"""num_workers=0: the pool starts no thread, and lacks nothing but the background."""

import threading

from tests.server.databases import Databases
from tests.server.support import Call, borrow, eventually, fill, in_thread, pool_of, value, wrapper


def pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pool-")]


def alias_threads(alias: str) -> list[str]:
    return [name for name in pool_threads() if name == f"pool-{alias}"]


def test_no_thread_is_started(databases: Databases) -> None:
    connection = databases.add({"num_workers": 0, "min_size": 2, "max_size": 4})
    pool = pool_of(connection)
    pool.wait(10)
    assert databases.server.backends() == 2
    fill(pool, 4)
    databases.server.terminate_backends("tests")
    assert value(connection, "SELECT 1") == 1
    pool.drain()
    pool.check()
    connection.close()
    assert alias_threads(connection.alias) == []


def test_with_workers_the_threads_bear_the_pools_name(databases: Databases) -> None:
    connection = databases.add({"num_workers": 1})
    borrow(connection)
    assert alias_threads(connection.alias)


def test_threads_wait_their_turn(databases: Databases) -> None:
    connection = databases.add({"num_workers": 0, "max_size": 1, "timeout": 20})
    alias = connection.alias
    pool = pool_of(connection)
    borrow(connection)
    waiting = [Call(lambda: value(wrapper(alias), "SELECT 1")) for _ in range(4)]
    eventually(lambda: pool.get_stats()["requests_waiting"] == 4)
    connection.close()
    assert [call.outcome() for call in waiting] == [1] * 4
    assert databases.server.backends() == 1


def test_threads_connect_for_themselves_at_once(databases: Databases) -> None:
    connection = databases.add({"num_workers": 0, "max_size": 4})
    alias = connection.alias
    barrier = threading.Barrier(4)

    def borrow_together() -> int:
        pid = borrow(wrapper(alias))
        barrier.wait(20)
        return pid

    assert len({call.outcome() for call in [Call(borrow_together) for _ in range(4)]}) == 4


def test_idle_connections_are_closed_by_the_next_return(databases: Databases) -> None:
    connection = databases.add({"num_workers": 0, "min_size": 1, "max_size": 5, "max_idle": 0.1})
    fill(pool_of(connection), 5)
    assert databases.server.backends() == 5

    def shrunk() -> bool:
        in_thread(lambda: value(wrapper(connection.alias), "SELECT 1"))
        return databases.server.backends() == 1

    eventually(shrunk)


def test_connections_past_their_lifetime_are_closed_by_the_next_return(
    databases: Databases,
) -> None:
    connection = databases.add({"num_workers": 0, "max_size": 5, "max_lifetime": 0.2})
    old = set(fill(pool_of(connection), 5))

    def renewed() -> bool:
        borrow(connection)
        connection.close()
        rows = databases.server.psql("SELECT pid FROM pg_stat_activity WHERE datname = 'tests'")
        return not old & set(map(int, rows))

    eventually(renewed)
