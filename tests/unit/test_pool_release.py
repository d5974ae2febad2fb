"""A pool that nobody refers to any more goes, and its connections with it."""

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.testing import ScriptedDriver


@pytest.fixture(autouse=True)
def _without_the_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _pool(driver: ScriptedDriver, **options: object) -> Pool:
    return Pool("shop", driver.connect, driver, PoolOptions.parse({"max_size": 3, **options}))


@pytest.mark.parametrize("workers", [0, 3])
def test_a_pool_that_is_dropped_closes_its_idle_connections_at_once(workers: int) -> None:
    driver = ScriptedDriver()
    pool = _pool(driver, num_workers=workers)
    pool.checkin(pool.checkout())
    gone = weakref.ref(pool)
    del pool
    assert gone() is None
    assert [connection.closed for connection in driver.opened] == [True]


def test_a_lent_connection_goes_with_its_pool_and_its_borrower_without_the_collector() -> None:
    driver = ScriptedDriver()
    pool = _pool(driver, num_workers=0)
    lease = pool.checkout()
    gone = weakref.ref(lease.entry)
    del pool
    del lease
    assert gone() is None


def test_a_dropped_pool_leaves_nothing_for_the_collector() -> None:
    pool = _pool(ScriptedDriver(), num_workers=0)
    pool.checkin(pool.checkout())
    del pool
    assert gc.collect() == 0


def test_a_pool_that_goes_while_another_thread_is_at_its_books_closes_its_connections() -> None:
    driver = ScriptedDriver()
    pool = _pool(driver, num_workers=0)
    pool.checkin(pool.checkout())
    books = pool._core.lock
    books.acquire()
    other = threading.Timer(0.02, books.release)
    other.start()
    del pool
    other.join()
    assert [connection.closed for connection in driver.opened] == [True]
