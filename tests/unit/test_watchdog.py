"""What the pool asks of the server has a bound, and nothing else of the driver's is touched."""

import os
import threading
from contextlib import ExitStack

import pytest

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.pool.watchdog import Watchdog
from django_psycopg_pooled.runtime.inline import InlineRuntime
from django_psycopg_pooled.runtime.threads import ThreadRuntime
from django_psycopg_pooled.testing import (
    ManualClock,
    ManualRuntime,
    ScriptedConnection,
    ScriptedDriver,
)
from tests.server.support import eventually
from tests.unit.scripted_pool import ScriptedPool, audit


class Kennel:
    """A watchdog on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.driver = ScriptedDriver()
        self.runtime = ManualRuntime()
        self.clock = ManualClock(self.runtime)
        self.watchdog = Watchdog(self.driver, self.runtime, self.clock)

    @property
    def timers(self) -> list[float]:
        """When somebody is to look, from now."""
        return sorted(when - self.clock.now for when, _, _ in self.runtime._timers)

    def connections(self, count: int) -> list[ScriptedConnection]:
        return [self.driver.connect() for _ in range(count)]


def test_it_hangs_up_when_the_time_is_up_and_not_before() -> None:
    kennel = Kennel()
    [connection] = kennel.connections(1)
    with kennel.watchdog.over(connection, 5):
        kennel.clock.advance(4.999)
        assert not connection.hung_up
        kennel.clock.advance(0.001)
        assert connection.hung_up
    assert kennel.driver.calls == [("hang_up", 1)]


def test_it_leaves_alone_what_was_answered_in_time() -> None:
    kennel = Kennel()
    [connection] = kennel.connections(1)
    with kennel.watchdog.over(connection, 5):
        kennel.clock.advance(4)
    kennel.clock.advance(100)
    assert not connection.hung_up


def test_it_leaves_alone_what_has_raised() -> None:
    kennel = Kennel()
    [connection] = kennel.connections(1)
    with pytest.raises(ZeroDivisionError), kennel.watchdog.over(connection, 5):
        raise ZeroDivisionError
    kennel.clock.advance(100)
    assert not connection.hung_up


def test_it_hangs_up_once_however_long_the_block_goes_on() -> None:
    kennel = Kennel()
    [connection] = kennel.connections(1)
    with kennel.watchdog.over(connection, 5):
        kennel.clock.advance(100)
    assert kennel.driver.count("hang_up") == 1


def test_many_are_watched_at_once_by_one_timer() -> None:
    kennel = Kennel()
    connections = kennel.connections(50)
    with ExitStack() as blocks:
        for connection in connections:
            blocks.enter_context(kennel.watchdog.over(connection, 5))
            kennel.clock.advance(0.01)
            assert len(kennel.timers) == 1
        kennel.clock.advance(4.505)  # 5.005 s after the first, 4.515 s after the last
        assert [c.number for c in connections if c.hung_up] == [1]
        assert len(kennel.timers) == 1
        kennel.clock.advance(0.2)
        assert [c.number for c in connections if c.hung_up] == list(range(1, 22))
        kennel.clock.advance(0.3)
        assert all(c.hung_up for c in connections)
        assert kennel.timers == []


def test_a_busy_pool_does_not_pile_up_timers() -> None:
    kennel = Kennel()
    [connection] = kennel.connections(1)
    for _ in range(1000):
        with kennel.watchdog.over(connection, 5):
            kennel.clock.advance(0.001)
    assert len(kennel.timers) == 1
    kennel.clock.advance(5)
    assert kennel.timers == []


def test_after_a_quiet_time_it_watches_again() -> None:
    kennel = Kennel()
    first, second = kennel.connections(2)
    with kennel.watchdog.over(first, 5):
        pass
    kennel.clock.advance(100)
    with kennel.watchdog.over(second, 5):
        kennel.clock.advance(6)
    assert second.hung_up


def test_one_connection_may_be_watched_twice_at_once() -> None:
    kennel = Kennel()
    [connection] = kennel.connections(1)
    with kennel.watchdog.over(connection, 5):
        with kennel.watchdog.over(connection, 50):
            pass
        kennel.clock.advance(6)
        assert connection.hung_up


def test_no_bound_means_none() -> None:
    kennel = Kennel()
    [connection] = kennel.connections(1)
    with kennel.watchdog.over(connection, 0):
        kennel.clock.advance(1e6)
    assert not connection.hung_up
    assert kennel.timers == []


def test_without_worker_threads_there_is_nobody_to_watch() -> None:
    driver, runtime, clock = ScriptedDriver(), InlineRuntime(), ManualClock()
    watchdog, connection = Watchdog(driver, runtime, clock), driver.connect()
    with watchdog.over(connection, 5):
        clock.advance(100)
        runtime.run_due(clock.now)
    assert not connection.hung_up


def test_a_child_of_fork_forgets_what_the_parent_waits_for() -> None:
    kennel = Kennel()
    parents, mine = kennel.connections(2)
    with kennel.watchdog.over(mine, 50):  # in the parent; the child inherits the books
        pass
    watch = kennel.watchdog.over(parents, 5)
    watch.__enter__()
    kennel.runtime.forget()
    kennel.watchdog.forget()
    with kennel.watchdog.over(mine, 5):
        kennel.clock.advance(6)
    assert mine.hung_up
    assert not parents.hung_up


def test_it_forgets_with_its_pool_when_the_process_forks() -> None:
    scripted = ScriptedPool()
    core = scripted.pool._core
    with core.watchdog._lock:  # as a thread of the parent might hold it just then
        child = os.fork()
        if child == 0:
            free = core.watchdog._lock.acquire(blocking=False)
            os._exit(0 if free and not core.watchdog._watched else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_hangs_up_from_another_thread_while_the_caller_is_stuck() -> None:
    runtime = ThreadRuntime("shop", 1, SYSTEM_CLOCK)
    hung_up = threading.Event()

    class Stuck(ScriptedDriver):
        def hang_up(self, connection: object) -> None:
            hung_up.set()

    driver = Stuck()
    try:
        with Watchdog(driver, runtime, SYSTEM_CLOCK).over(driver.connect(), 0.05):
            assert hung_up.wait(5)
    finally:
        runtime.stop()
    eventually(lambda: not runtime._threads, 5)


def test_in_the_parent_of_a_fork_the_next_watch_sees_to_those_before_it() -> None:
    runtime = ThreadRuntime("shop", 1, SYSTEM_CLOCK)
    driver = ScriptedDriver()
    before, after = driver.connect(), driver.connect()
    watchdog = Watchdog(driver, runtime, SYSTEM_CLOCK)
    try:
        with watchdog.over(before, 0.05):
            runtime.pause(0.5)
            runtime.resume()
            watchdog.resume()
            with watchdog.over(after, 0.05):
                eventually(lambda: before.hung_up and after.hung_up, 5)
    finally:
        runtime.stop()


def test_threads_that_enter_and_leave_at_once_lose_no_watch() -> None:
    kennel = Kennel()
    runtime = ThreadRuntime("shop", 1, SYSTEM_CLOCK)
    watchdog = Watchdog(kennel.driver, runtime, SYSTEM_CLOCK)
    connections = kennel.connections(8)
    late = kennel.connections(1)[0]

    def work(connection: ScriptedConnection) -> None:
        for _ in range(500):
            with watchdog.over(connection, 0.02):
                pass

    threads = [threading.Thread(target=work, args=(c,)) for c in connections]
    try:
        for thread in threads:
            thread.start()
        with watchdog.over(late, 0.05):
            eventually(lambda: late.hung_up, 5)
        for thread in threads:
            thread.join(10)
        assert watchdog._watched == {}
    finally:
        runtime.stop()


# ---- in a pool


class _SilentDriver(ScriptedDriver):
    """Its server lets each round trip wait until somebody hangs up."""

    clock: ManualClock

    def _must_answer(self, connection: ScriptedConnection) -> None:
        if connection.unanswered:
            while not connection.hung_up:
                self.clock.advance(0.1)
        super()._must_answer(connection)


def _silent(**options: object) -> ScriptedPool:
    driver = _SilentDriver()
    scripted = ScriptedPool(driver, **options)
    driver.clock = scripted.clock
    return scripted


def test_a_check_of_a_silent_server_ends_after_check_timeout() -> None:
    scripted = _silent(check_idle=30, check_timeout=2)
    scripted.warm(1)
    scripted.clock.advance(31)
    scripted.driver.opened[0].unanswered = True
    began = scripted.clock.now
    assert scripted.pool.checkout(timeout=10).connection.number == 2
    assert scripted.clock.now - began == pytest.approx(2, abs=0.2)
    audit(scripted.pool)


def test_a_rollback_that_a_silent_server_does_not_answer_ends_after_check_timeout() -> None:
    scripted = _silent(check_timeout=2)
    lease = scripted.pool.checkout()
    lease.connection.status = TransactionStatus.INTRANS
    lease.connection.unanswered = True
    began = scripted.clock.now
    scripted.pool.checkin(lease)
    assert scripted.clock.now - began == pytest.approx(2, abs=0.2)
    assert lease.connection.closed
    audit(scripted.pool)


def test_a_silent_server_keeps_no_slot_of_an_ended_thread() -> None:
    scripted = _silent(max_size=1, check_timeout=2)
    lease = scripted.pool.checkout(bound=True)
    lease.connection.status = TransactionStatus.INTRANS
    lease.connection.unanswered = True
    assert lease.entry.holder is not None
    lease.entry.holder.alive = False
    try:
        began = scripted.clock.now
        assert scripted.pool.checkout(timeout=10).connection.number == 2
        assert scripted.clock.now - began < 3
    finally:
        lease.entry.holder.alive = True  # this thread's
    audit(scripted.pool)
