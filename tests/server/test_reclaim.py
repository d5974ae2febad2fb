"""Connections of threads that ended, and of wrappers that were collected, come back. PAINS 4, 6."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import Error, OperationalError, connections, transaction

from django_psycopg_pooled.errors import FinalizerRefused
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.pool.pool import Pool
from tests.server.databases import Databases
from tests.server.support import (
    Call,
    assert_adds_up,
    borrow,
    eventually,
    in_thread,
    pool_of,
    value,
    wrapper,
)

HERE = "tests/server/test_reclaim.py"
SOON_S = 0.5  # the bound on how long a request waits for what nobody can give back


def line_of(name: str) -> int:
    """The number of the line that ends with this mark."""
    lines = Path(__file__).read_text().splitlines()
    [number] = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {name}")]
    return number


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Nothing here may need the garbage collector, which runs when it likes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def end_without_close(*bodies: Callable[[], object]) -> list[threading.Thread]:
    """Call each of *bodies* in a thread of its own, all at once; none closes its connection."""
    together = threading.Barrier(len(bodies))
    errors: list[BaseException] = []

    def run(body: Callable[[], object]) -> None:
        try:
            body()
            together.wait(20)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    return threads


def reclaimed(pool: Pool) -> int:
    return pool.get_stats()["reclaimed"]


def query(alias: str) -> None:
    with wrapper(alias).cursor() as cursor:  # line: borrowed
        cursor.execute("SELECT 1")


def leaks(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [text for text in texts if "never given back" in text]


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("workers", [3, 0])
def test_a_third_request_is_served_after_two_threads_ended_without_close(
    databases: Databases, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """PAINS V4: Django's pool raises PoolTimeout here, even after gc.collect()."""
    connection = databases.add({"max_size": 2, "timeout": 10, "num_workers": workers})
    pool, alias = pool_of(connection), connection.alias
    end_without_close(lambda: query(alias), lambda: query(alias))
    began = time.perf_counter()
    assert value(connection, "SELECT 3") == 3
    assert time.perf_counter() - began < SOON_S
    assert reclaimed(pool) == 2
    assert databases.server.backends() == 2
    [said] = leaks(caplog)
    assert f"it was borrowed at {HERE}:{line_of('borrowed')} in query" in said
    assert_adds_up(pool)


@pytest.mark.usefixtures("_no_collector")
def test_it_is_served_within_50_ms_if_nobody_has_looked_just_before(databases: Databases) -> None:
    connection = databases.add({"max_size": 2, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias
    times = []
    for _ in range(5):
        end_without_close(lambda: query(alias), lambda: query(alias))
        eventually(lambda: pool._core.clock.monotonic() > pool._core.reclaim_at)
        began = time.perf_counter()
        value(connection, "SELECT 3")
        times.append(time.perf_counter() - began)
        connection.close()
    assert sorted(times)[2] < 0.05, times  # the median: the machine may be busy
    assert max(times) < SOON_S


@pytest.mark.usefixtures("_no_collector")
def test_each_place_that_loses_connections_is_logged_once(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias

    def elsewhere() -> None:
        wrapper(alias).ensure_connection()  # line: elsewhere

    for body in (lambda: query(alias), elsewhere) * 3:
        end_without_close(body)
    in_thread(lambda: value(wrapper(alias), "SELECT 1"))
    assert reclaimed(pool) == 6
    said = leaks(caplog)
    assert len(said) == 2
    assert f"{HERE}:{line_of('borrowed')} in query" in said[0]
    assert f"{HERE}:{line_of('elsewhere')} in " in said[1]
    assert "connections.close_all()" in said[0]


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("workers", [3, 0])
def test_what_an_ended_thread_has_left_open_is_rolled_back(
    databases: Databases, workers: int
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 10, "num_workers": workers})
    alias = connection.alias
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE left_open (id int)")
    connection.close()

    def leave() -> None:
        wrapper(alias).set_autocommit(False)
        wrapper(alias).cursor().execute("INSERT INTO left_open VALUES (1)")

    try:
        end_without_close(leave)
        assert value(connection, "SELECT count(*) FROM left_open") == 0
        assert connection.get_autocommit()
        assert DRIVER.status(connection.connection).name == "IDLE"
        assert databases.server.backends() == 1, "the connection was worth keeping"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE left_open")


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("threshold", [3, 0])
def test_the_locks_of_an_ended_thread_go_though_nobody_waits_for_the_pool(
    databases: Databases, threshold: float
) -> None:
    """Whoever waits for them waits on the server, with a connection of the pool in his hand."""
    options = {"max_size": 4, "idle_in_transaction_threshold": threshold}
    connection = databases.add(options)
    pool, alias = pool_of(connection), connection.alias

    def lock(with_: PooledWrapper) -> None:
        with with_.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '10s'")
            cursor.execute("SELECT pg_advisory_xact_lock(41)")

    def leave() -> None:
        wrapper(alias).set_autocommit(False)
        lock(wrapper(alias))

    end_without_close(leave)
    began = time.perf_counter()
    with transaction.atomic(alias):
        lock(connection)
    assert time.perf_counter() - began < 5
    assert reclaimed(pool) == 1


@pytest.mark.usefixtures("_no_collector")
def test_what_an_ended_thread_had_is_closed_with_the_pool(databases: Databases) -> None:
    connection = databases.add({"max_size": 2})
    pool, alias = pool_of(connection), connection.alias
    end_without_close(lambda: query(alias))
    pool.close()
    eventually(lambda: pool.snapshot().size == 0)
    eventually(lambda: databases.server.backends() == 0)


@pytest.mark.parametrize("workers", [3, 0])
def test_a_request_that_waits_already_is_served_when_a_holder_dies(
    databases: Databases, workers: int
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 10, "num_workers": workers})
    pool, alias = pool_of(connection), connection.alias
    holds, end = threading.Event(), threading.Event()

    def hold() -> None:
        query(alias)
        holds.set()
        end.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holds.wait(20)
    waiting = Call(lambda: (value(wrapper(alias), "SELECT 1"), time.perf_counter()))
    eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
    end.set()
    holder.join(20)
    ended = time.perf_counter()
    answer, served = waiting.outcome()
    assert answer == 1
    assert served - ended < SOON_S
    assert reclaimed(pool) == 1


def test_many_threads_that_end_without_close_starve_nobody(databases: Databases) -> None:
    """10 threads on a pool of 4: django-db-connection-pool fails 6 of them."""
    connection = databases.add({"max_size": 4, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias
    threads = [threading.Thread(target=query, args=(alias,)) for _ in range(20)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert value(connection, "SELECT 1") == 1
    assert time.perf_counter() - began < 8
    assert reclaimed(pool) >= 16
    connection.close()
    eventually(lambda: not pool.snapshot().count("lent") or in_thread(lambda: borrow_all(pool)))
    assert_adds_up(pool)


def borrow_all(pool: Pool) -> bool:
    """Borrow all that can be had, which takes back what is lost; False, to be asked again."""
    leases = [pool.checkout(timeout=5) for _ in range(pool.options.max_size)]
    for lease in leases:
        pool.checkin(lease)
    return False


def test_an_ended_threads_wrapper_can_give_nothing_back(databases: Databases) -> None:
    """It may be collected, or closed, long after its connection has another borrower."""
    connection = databases.add({"max_size": 1, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias
    kept: list[PooledWrapper] = []

    def keep() -> None:
        query(alias)
        kept.append(wrapper(alias))

    end_without_close(keep)
    pid = borrow(connection)
    kept[0].inc_thread_sharing()
    kept[0].close()
    kept.clear()
    gc.collect()
    assert pool.snapshot().count("lent") == 1
    assert borrow(connection) == pid
    assert value(connection, "SELECT 1") == 1


def test_a_new_thread_with_a_dead_ones_number_does_not_keep_its_connection(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias
    [dead] = end_without_close(lambda: query(alias))
    stop = threading.Event()
    others: list[threading.Thread] = []
    try:
        for _ in range(50):  # numbers are used again at once, mostly
            others.append(threading.Thread(target=stop.wait, args=(20,)))
            others[-1].start()
            if others[-1].ident == dead.ident:
                break
        assert others[-1].ident == dead.ident, "no number was used again"
        assert value(connection, "SELECT 1") == 1
        assert reclaimed(pool) == 1
    finally:
        stop.set()
        for other in others:
            other.join(20)


def test_a_cursor_that_outlives_its_thread_never_works_for_another_borrower(
    databases: Databases,
) -> None:
    """Its rows would come and go with a stranger's transaction."""
    connection = databases.add({"max_size": 1, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE handed_over (id int)")
    connection.close()
    cursors: list[Any] = []

    def hand_over() -> None:
        cursors.append(wrapper(alias).cursor())
        cursors[0].execute("SELECT 1")

    try:
        end_without_close(hand_over)
        with transaction.atomic(alias):
            value(connection, "SELECT 1")
            with pytest.raises((Error, DRIVER.Error)):
                cursors[0].cursor.execute("INSERT INTO handed_over VALUES (1)")
            assert value(connection, "SELECT count(*) FROM handed_over") == 0
        assert reclaimed(pool) == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE handed_over")


def test_a_statement_that_outlives_the_thread_of_its_cursor_is_let_finish(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 2, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias
    cursors: list[Any] = []

    def hand_over() -> None:
        cursors.append(wrapper(alias).cursor())
        cursors[0].execute("SELECT 1")

    end_without_close(hand_over)
    cursors[0].cursor.execute("SELECT 42 FROM pg_sleep(2.5)")  # the pool looks each second
    assert reclaimed(pool) == 0
    eventually(lambda: pool.get_stats()["reclaimed"] == 1)
    eventually(lambda: databases.server.backends("query LIKE '%pg_sleep(2.5)%'") == 0)


# ---- what finalizers give back


def _generator_of_connection(pool: Pool) -> Iterator[object]:
    with pool.connection() as raw:
        yield raw


def _generator_of_getconn(pool: Pool) -> Iterator[object]:
    raw = pool.getconn()
    try:
        yield raw
    finally:
        pool.putconn(raw)


def _generator_of_a_wrapper(pool: Pool) -> Iterator[object]:
    mine = wrapper(pool.name)
    try:
        yield borrow(mine)
    finally:
        mine.close()


@pytest.mark.parametrize(
    "generate", [_generator_of_connection, _generator_of_getconn, _generator_of_a_wrapper]
)
def test_the_collector_may_end_a_generator_in_the_midst_of_the_pools_books(
    databases: Databases, generate: Callable[[Pool], Iterator[object]]
) -> None:
    """What it gives back wants the lock that its own thread has."""
    connection = databases.add({"max_size": 1, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias

    def collect() -> None:
        cycle: list[object] = [generate(pool)]
        cycle.append(cycle)
        next(cycle[0])  # type: ignore[call-overload]
        del cycle
        with pool._core.lock:
            gc.collect()

    in_thread(collect)
    assert value(wrapper(alias), "SELECT 1") == 1
    assert databases.server.backends() == 1


def test_a_finalizer_that_wants_a_connection_in_the_midst_of_the_books_is_refused(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 10})
    pool = pool_of(connection)
    errors: list[BaseException] = []

    class Node:
        me: "Node"

        def __del__(self) -> None:
            try:
                pool.getconn()
            except FinalizerRefused as error:
                errors.append(error)

    def collect() -> None:
        node = Node()
        node.me = node
        del node
        with pool._core.lock:
            gc.collect()

    in_thread(collect)
    assert str(errors[0]).startswith("[P106] a finalizer asked the pool 'db")
    assert value(connection, "SELECT 1") == 1


# ---- what has a holder still, or may have


def test_a_connection_that_threads_share_outlives_the_one_that_borrowed_it(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 0.6})
    pool, alias = pool_of(connection), connection.alias
    shared: list[PooledWrapper] = []

    def share() -> None:
        mine = wrapper(alias)
        borrow(mine)
        mine.inc_thread_sharing()
        shared.append(mine)

    end_without_close(share)
    with pytest.raises(OperationalError, match="P101"):
        borrow(connection)
    assert value(shared[0], "SELECT 1") == 1
    assert reclaimed(pool) == 0
    shared[0].close()
    assert value(connection, "SELECT 1") == 1


def test_what_getconn_lent_outlives_its_thread(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 0.6})
    pool = pool_of(connection)
    raws: list[Any] = []
    end_without_close(lambda: raws.append(pool.getconn()))
    with pytest.raises(OperationalError, match="P101"):
        borrow(connection)
    raws[0].cursor().execute("SELECT 1")
    assert reclaimed(pool) == 0
    pool.putconn(raws.pop())
    assert value(connection, "SELECT 1") == 1


def test_what_getconn_lent_and_nobody_has_any_more_comes_back(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5})
    pool = pool_of(connection)
    cursor = pool.getconn().cursor()
    cursor.execute("SELECT 1")
    assert cursor.fetchone() == (1,)
    cursor.close()
    del cursor
    began = time.perf_counter()
    assert value(connection, "SELECT 1") == 1
    assert time.perf_counter() - began < SOON_S
    assert reclaimed(pool) == 1
    assert databases.server.backends() == 1


def _of_a_dropped_wrapper(connection: PooledWrapper, take: Callable[[PooledWrapper], Any]) -> Any:
    """What *take* returns for a copy of *connection*, which is then collected in this thread."""
    copied = connection.copy()
    assert isinstance(copied, PooledWrapper)
    borrow(copied)
    taken = take(copied)
    del copied
    gc.collect()
    return taken


def _read_three(raw: Any, name: str | None = None) -> Any:
    cursor = raw.cursor(name) if name else raw.cursor()
    cursor.execute("SELECT generate_series(1, 1000)")
    assert [cursor.fetchone() for _ in range(3)] == [(1,), (2,), (3,)]
    return cursor


def _named_cursor(copied: PooledWrapper) -> Any:
    copied.set_autocommit(False)
    return _read_three(copied.connection, "reader")


HOLDS: list[Callable[[PooledWrapper], Any]] = [
    lambda copied: copied.connection,
    lambda copied: _read_three(copied.connection),
    _named_cursor,
]


@pytest.mark.parametrize("take", HOLDS, ids=["connection", "cursor", "named cursor"])
def test_what_somebody_refers_to_is_not_taken_from_a_dropped_wrapper(
    databases: Databases, take: Callable[[PooledWrapper], Any]
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 0.6})
    pool = pool_of(connection)
    taken = _of_a_dropped_wrapper(connection, take)
    with pytest.raises(OperationalError, match="P101"):
        borrow(connection)
    assert reclaimed(pool) == 0
    if hasattr(taken, "fetchone"):
        assert taken.fetchone() == (4,)
        taken.close()
    else:
        _read_three(taken).close()
    del taken
    assert value(connection, "SELECT 1") == 1
    assert reclaimed(pool) == 1


@pytest.mark.parametrize("workers", [3, 0])
def test_a_copy_that_is_dropped_in_a_living_thread_gives_its_connection_back(
    databases: Databases, workers: int
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5, "num_workers": workers})
    pool = pool_of(connection)
    _of_a_dropped_wrapper(connection, lambda copied: None)
    began = time.perf_counter()
    assert value(connection, "SELECT 1") == 1
    assert time.perf_counter() - began < SOON_S
    assert reclaimed(pool) == 1


def test_who_had_a_connection_before_does_not_keep_it_from_being_reclaimed(
    databases: Databases,
) -> None:
    """A wrapper keeps the Lease of its last loan; as a reference it would look like use."""
    connection = databases.add({"max_size": 1, "timeout": 5})
    other, before = connection.copy(), connection.copy()
    assert isinstance(before, PooledWrapper)
    borrow(before)
    before.close()
    _of_a_dropped_wrapper(connection, lambda copied: None)
    assert value(other, "SELECT 1") == 1
    assert reclaimed(pool_of(connection)) == 1
    other.close()


def test_an_alias_that_is_deleted_gives_its_connection_back(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5})
    pool, alias = pool_of(connection), connection.alias
    borrow(connection)
    del connection
    del connections[alias]
    gc.collect()
    assert value(wrapper(alias), "SELECT 1") == 1
    assert reclaimed(pool) == 1


def test_a_copy_in_a_cycle_comes_back_when_a_collection_finds_it_while_others_wait(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 10})
    pool, alias = pool_of(connection), connection.alias
    gc.collect()
    gc.disable()
    try:
        borrow(connection.copy())
        waiting = Call(lambda: value(wrapper(alias), "SELECT 1"))
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
    finally:
        gc.enable()
    gc.collect()
    began = time.perf_counter()
    assert waiting.outcome() == 1
    assert time.perf_counter() - began < SOON_S
