"""Lending and taking back, in one thread and without a server."""

import threading
from typing import Any

import pytest

from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.errors import NotBorrowed, PoolClosed, PoolTimeout, TooManyRequests
from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.states import IllegalMove, State
from django_psycopg_pooled.pool.waiter import Waiter
from django_psycopg_pooled.session import Effect
from django_psycopg_pooled.testing import ScriptedConnection, ScriptedDriver
from django_psycopg_pooled.testing.scripted import DriverError, RefusedError
from tests.unit.scripted_pool import ScriptedPool, audit


def test_the_connection_that_came_back_last_is_lent_first() -> None:
    scripted = ScriptedPool()
    scripted.warm(3)
    assert scripted.pool.checkout().connection.number == 3
    assert scripted.pool.checkout().connection.number == 2
    audit(scripted.pool)


def test_a_clean_cycle_asks_nothing_of_the_driver() -> None:
    scripted = ScriptedPool()
    scripted.warm(1)
    scripted.driver.calls.clear()
    for _ in range(10):
        scripted.pool.checkin(scripted.pool.checkout())
    assert scripted.driver.calls == []


def test_a_loan_that_was_given_back_cannot_give_back_the_next_borrowers_connection() -> None:
    scripted = ScriptedPool()
    mine = scripted.pool.checkout()
    scripted.pool.checkin(mine)
    yours = scripted.pool.checkout()
    assert yours.connection is mine.connection
    scripted.pool.checkin(mine)
    assert scripted.counts() == {"lent": 1}
    scripted.pool.checkin(yours)
    assert scripted.counts() == {"idle": 1}


def test_an_open_transaction_is_rolled_back_before_the_next_loan() -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    lease.connection.status = TransactionStatus.INERROR
    lease.connection.autocommit = False
    scripted.pool.checkin(lease)
    again = scripted.pool.checkout()
    assert again.connection is lease.connection
    assert again.connection.status is TransactionStatus.IDLE
    assert again.connection.autocommit


@pytest.mark.parametrize("status", [TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN])
def test_a_connection_that_cannot_be_brought_back_is_closed(status: TransactionStatus) -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    lease.connection.status = status
    scripted.pool.checkin(lease)
    assert lease.connection.closed
    assert scripted.counts() == {}
    assert scripted.pool.get_stats()["returns_bad"] == 1


def test_a_rollback_that_fails_closes_the_connection_and_raises_nothing() -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    lease.connection.status = TransactionStatus.INTRANS
    lease.connection.unanswered = True
    scripted.pool.checkin(lease)
    assert lease.connection.closed
    assert scripted.counts() == {}


def test_reset_runs_at_each_return_and_its_failure_closes_the_connection() -> None:
    seen: list[int] = []

    def reset(connection: object) -> None:
        seen.append(connection.number)  # type: ignore[attr-defined]
        if len(seen) == 2:
            raise DriverError("reset failed")

    scripted = ScriptedPool(reset=reset)
    scripted.warm(1)
    lease = scripted.pool.checkout()
    scripted.pool.checkin(lease)
    assert seen == [1, 1]
    assert lease.connection.closed
    assert scripted.counts() == {}


def test_a_reset_that_leaves_a_transaction_open_closes_the_connection() -> None:
    def reset(connection: object) -> None:
        connection.status = TransactionStatus.INTRANS  # type: ignore[attr-defined]

    scripted = ScriptedPool(reset=reset)
    lease = scripted.pool.checkout()
    scripted.pool.checkin(lease)
    assert lease.connection.closed


def test_an_evicted_connection_is_closed_on_its_return() -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    scripted.pool.evict(lease)
    assert not lease.connection.closed
    scripted.pool.checkin(lease)
    assert lease.connection.closed


def test_putconn_takes_back_what_getconn_lent_and_nothing_else() -> None:
    scripted = ScriptedPool()
    connection = scripted.pool.getconn()
    scripted.pool.putconn(connection)
    assert scripted.counts() == {"idle": 1}
    with pytest.raises(NotBorrowed, match=r"\[P105\].*not lent by the pool 'shop'"):
        scripted.pool.putconn(connection)
    with pytest.raises(NotBorrowed):
        scripted.pool.putconn(object())


def test_the_with_block_gives_back_after_an_error() -> None:
    scripted = ScriptedPool()
    with pytest.raises(ZeroDivisionError), scripted.pool.connection() as connection:
        raise ZeroDivisionError
    assert not connection.closed
    assert scripted.counts() == {"idle": 1}


def test_a_request_waits_its_timeout_and_the_error_says_who_has_the_connections() -> None:
    scripted = ScriptedPool(max_size=1, timeout=5)
    scripted.pool.checkout()
    scripted.clock.advance(36)
    before = scripted.clock.now
    with pytest.raises(PoolTimeout) as caught:
        scripted.pool.checkout()
    assert scripted.clock.now - before == pytest.approx(5)
    assert str(caught.value) == (
        "[P101] no connection to 'shop' within 5.0 s.\n"
        "Pool: 1 of 1 lent, 0 idle, 0 opening; 0 requests waiting. Last failed connect: none.\n"
        "Longest loans:\n"
        "  41.0 s, thread 'MainThread' (this very thread), idle, server process 10001\n"
        "This thread already holds a connection of this pool and waits for one more: if all threads"
        " do so, none ever gets it.\n"
        "To do: (1) end those loans sooner; (2) raise max_size above 1 (one server process each);"
        " (3) raise timeout above 5 s (requests then queue longer)."
    )
    assert isinstance(caught.value, DriverError)
    assert scripted.pool.get_stats()["requests_errors"] == 1
    audit(scripted.pool)


def test_a_timeout_of_zero_does_not_wait() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    before = scripted.clock.now
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=0)
    assert scripted.clock.now == before
    scripted.pool.checkin(lease)
    assert scripted.pool.checkout(timeout=0).connection is lease.connection


def test_a_returned_connection_goes_to_the_one_who_waits() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    scripted.at(2, lambda: scripted.pool.checkin(lease))
    again = scripted.pool.checkout()
    assert again.connection is lease.connection
    stats = scripted.pool.get_stats()
    assert (stats["requests_queued"], stats["requests_wait_ms"]) == (2, 2000)
    audit(scripted.pool)


def test_a_request_beyond_max_waiting_is_refused_at_once() -> None:
    scripted = ScriptedPool(max_size=1, max_waiting=1)
    scripted.pool.checkout()
    refused: list[Exception] = []

    def second() -> None:
        try:
            scripted.pool.checkout()
        except TooManyRequests as error:
            refused.append(error)

    scripted.at(1, second)
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=2)
    [error] = refused
    assert str(error).startswith(
        "[P102] 1 request already waiting for a connection to 'shop', and max_waiting is 1."
    )


def test_a_failed_first_connect_reaches_the_caller_as_the_drivers_own_exception() -> None:
    failure = DriverError("connection refused")
    scripted = ScriptedPool(ScriptedDriver([failure]))
    with pytest.raises(DriverError) as caught:
        scripted.pool.checkout()
    assert caught.value is failure
    audit(scripted.pool)


def test_later_failures_are_retried_until_the_server_is_back() -> None:
    driver = ScriptedDriver([None, *[DriverError("connection refused")] * 4])
    scripted = ScriptedPool(driver)
    lease = scripted.pool.checkout()
    lease.connection.dead = True
    scripted.pool.checkin(lease)
    before = scripted.clock.now
    assert scripted.pool.checkout().connection.number == 2
    # 0.1 + 0.2 + 0.4 + 0.8 s, each 20 % more or less
    assert scripted.clock.now - before == pytest.approx(1.5, rel=0.21)


def test_a_timeout_during_an_outage_carries_the_last_failure() -> None:
    driver = ScriptedDriver([None, *[DriverError("connection refused,\n\tno server")] * 100])
    scripted = ScriptedPool(driver, timeout=3)
    lease = scripted.pool.checkout()
    lease.connection.dead = True
    scripted.pool.checkin(lease)
    with pytest.raises(PoolTimeout, match=r"s ago: connection refused, no server\.") as caught:
        scripted.pool.checkout()
    assert "the server is down, full, or cannot be reached" in str(caught.value)


def test_a_refusal_ends_the_wait_of_everybody_if_nothing_can_come_back() -> None:
    refused = RefusedError("password authentication failed")
    scripted = ScriptedPool(ScriptedDriver([None, refused]))
    lease = scripted.pool.checkout()
    scripted.pool.evict(lease)
    scripted.pool.checkin(lease)
    before = scripted.clock.now
    with pytest.raises(RefusedError):
        scripted.pool.checkout()
    assert scripted.clock.now == before


def test_a_refusal_leaves_those_waiting_who_may_still_be_served() -> None:
    refused = RefusedError("password authentication failed")
    scripted = ScriptedPool(ScriptedDriver([None, *[refused] * 100]), max_size=2)
    lease = scripted.pool.checkout()
    scripted.at(2, lambda: scripted.pool.checkin(lease))
    assert scripted.pool.checkout().connection is lease.connection


def test_a_closed_pool_refuses_and_closes_what_comes_back() -> None:
    scripted = ScriptedPool()
    scripted.warm(2)
    lease = scripted.pool.checkout()
    scripted.pool.close()
    with pytest.raises(PoolClosed, match=r"\[P103\] the pool 'shop' is closed"):
        scripted.pool.checkout()
    assert not lease.connection.closed
    scripted.pool.checkin(lease)
    assert all(connection.closed for connection in scripted.driver.opened)
    assert scripted.counts() == {}


def test_closing_the_pool_ends_the_wait_of_those_in_the_queue() -> None:
    scripted = ScriptedPool(max_size=1)
    scripted.pool.checkout()
    scripted.at(1, scripted.pool.close)
    with pytest.raises(PoolClosed):
        scripted.pool.checkout()


def test_a_move_that_the_table_does_not_allow_raises() -> None:
    entry = Entry(1, 0.0)
    entry.move(State.IDLE)
    with pytest.raises(IllegalMove, match="connection 1: IDLE to CLOSED"):
        entry.move(State.CLOSED)


def test_without_threads_a_return_that_comes_while_one_asks_for_a_connect_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = ScriptedPool(max_size=1, num_workers=0)
    lease = scripted.pool.checkout()
    open_for = scripted.pool._opener.open_for

    def return_first(waiter: Waiter) -> bool:
        scripted.pool.checkin(lease)
        return open_for(waiter)

    monkeypatch.setattr(scripted.pool._opener, "open_for", return_first)
    assert scripted.pool.checkout(timeout=1).connection is lease.connection
    audit(scripted.pool)


# ---- a Lease that is used again


def test_a_lease_used_again_is_the_same_object_with_a_new_loan() -> None:
    scripted = ScriptedPool()
    scripted.warm(1)
    lease = scripted.pool.checkout(bound=True)
    old = Lease.present(lease.entry, lease.holder)
    assert (lease.ended, old.ended) == (False, False)
    scripted.pool.checkin(lease)
    assert (lease.ended, old.ended) == (True, True)
    assert scripted.pool.checkout(bound=True, lease=lease) is lease
    assert (lease.ended, old.ended) == (False, True)
    assert lease.number != old.number
    scripted.pool.checkin(old)  # as late as can be
    assert scripted.counts() == {"lent": 1}
    scripted.pool.checkin(lease)
    scripted.pool.checkin(lease)
    assert scripted.counts() == {"idle": 1}
    assert scripted.pool.get_stats()["requests_num"] == 3
    audit(scripted.pool)


def test_a_lease_used_again_has_the_connection_of_its_new_loan() -> None:
    scripted = ScriptedPool()
    scripted.warm(2)
    lease = scripted.pool.checkout()
    assert lease.connection.number == 2
    scripted.pool.checkin(lease)
    taken = scripted.pool.checkout()
    assert scripted.pool.checkout(lease=lease).connection.number == 1
    assert not taken.ended
    scripted.pool.checkin(lease)
    assert not taken.ended
    assert scripted.counts() == {"idle": 1, "lent": 1}


@pytest.mark.parametrize("bound", [False, True])
def test_a_lease_used_again_is_bound_only_if_its_new_loan_is(bound: bool) -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout(bound=not bound)
    scripted.pool.checkin(lease)
    assert scripted.pool.checkout(bound=bound, lease=lease).entry.bound is bound


def test_a_lease_is_used_again_by_a_request_that_has_to_wait() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    scripted.pool.checkin(lease)
    other = scripted.pool.checkout()
    scripted.at(2, lambda: scripted.pool.checkin(other))
    assert scripted.pool.checkout(lease=lease) is lease
    assert (lease.ended, other.ended) == (False, True)
    scripted.pool.checkin(lease)
    assert scripted.counts() == {"idle": 1}
    audit(scripted.pool)


def test_a_lease_is_used_again_where_its_old_connection_has_died() -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    scripted.pool.checkin(lease)
    lease.connection.dead = True
    assert scripted.pool.checkout(lease=lease) is lease
    assert lease.connection.number == 2
    assert not lease.ended
    assert scripted.counts() == {"lent": 1}


def test_a_lease_that_waited_in_vain_holds_nothing_and_may_be_used_again() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    scripted.pool.checkin(lease)
    other = scripted.pool.checkout()
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=1, lease=lease)
    assert lease.ended
    scripted.pool.checkin(lease)
    assert not other.ended
    scripted.pool.checkin(other)
    assert not scripted.pool.checkout(lease=lease).ended


def test_a_lease_of_one_pool_is_used_again_in_another() -> None:
    one, two = ScriptedPool(), ScriptedPool()
    two.warm(1)
    lease = one.pool.checkout()
    one.pool.checkin(lease)
    others = one.pool.checkout()
    two.pool.checkout(lease=lease)
    assert lease.connection in two.driver.opened
    two.pool.checkin(lease)
    assert not others.ended
    assert (one.counts(), two.counts()) == ({"lent": 1}, {"idle": 1})
    two.pool.close()
    one.pool.checkin(others)
    assert one.pool.checkout(lease=lease).connection in one.driver.opened


# ---- what a loan begins and ends with


def test_each_loan_knows_how_long_it_was_waited_for_and_nothing_of_the_one_before() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    session = lease.entry.session
    session.last = "where the last one executed something"
    scripted.at(2, lambda: scripted.pool.checkin(lease))
    again = scripted.pool.checkout()
    assert again.entry.session is session
    assert (session.waited, session.last) == (2.0, None)
    session.last = "where this one did"
    scripted.pool.checkin(again)
    scripted.pool.checkout()
    assert (session.waited, session.last) == (0.0, None)


def test_the_look_at_the_socket_before_a_loan_waits_for_nothing() -> None:
    looks: list[int] = []

    class Driver(ScriptedDriver):
        def watch(self, connection: Any) -> Watch:
            return lambda ms: bool(looks.append(ms))  # type: ignore[func-returns-value]

    scripted = ScriptedPool(Driver())
    scripted.warm(1)
    scripted.warm(1)
    assert set(looks) == {0}


def test_what_was_used_within_check_idle_is_lent_unchecked_and_at_its_end_it_is_checked() -> None:
    scripted = ScriptedPool(check_idle=30, min_size=1)
    scripted.warm(1)
    scripted.clock.advance(29.9)
    scripted.warm(1)  # in line
    scripted.clock.advance(29.9)
    scripted.warm(1)
    assert scripted.driver.count("check") == 0
    scripted.clock.advance(30)
    scripted.warm(1)
    assert scripted.driver.count("check") == 1


def test_one_that_would_be_fresh_beyond_its_lifetime_is_not_lent_after_it() -> None:
    scripted = ScriptedPool(check_idle=1e6, max_idle=1e6, max_lifetime=3600, max_lifetime_jitter=0)
    scripted.warm(2)
    scripted.warm(2)  # returns in line
    for entry in scripted.pool._core.ledger.entries:
        assert entry.fresh_until == entry.retire_at
    scripted.clock.now += 3600  # and the housekeeper is late
    assert scripted.pool.checkout().connection.number == 3


def test_the_statistics_count_loans_in_line_as_all_others() -> None:
    scripted = ScriptedPool()
    scripted.warm(2)
    scripted.warm(2)
    before = scripted.pool.get_stats()
    counters = scripted.pool._core.counters
    assert counters.loans_num == 4
    for seconds in (1, 2):
        lease = scripted.pool.checkout()
        scripted.clock.advance(seconds)
        assert scripted.pool._core.ledger.calm
        scripted.pool.checkin(lease)
    after = scripted.pool.get_stats()
    assert after["usage_ms"] - before["usage_ms"] == 3000
    assert after["requests_num"] - before["requests_num"] == 2
    assert counters.loans_num == 4 + 2
    # Since when it is idle, and known to be alive.
    assert (lease.entry.since, lease.entry.proven_at) == (scripted.clock.now, scripted.clock.now)


def test_after_a_dead_connection_was_replaced_by_an_idle_one_min_size_is_filled_again() -> None:
    scripted = ScriptedPool(min_size=2)
    scripted.warm(2)
    scripted.clock.advance(0.001)
    scripted.driver.opened[-1].dead = True
    assert scripted.pool.checkout().connection.number == 1
    scripted.clock.advance(0.001)
    assert scripted.counts() == {"idle": 1, "lent": 1}


def test_a_pin_holds_in_its_thread_and_may_be_nested() -> None:
    scripted = ScriptedPool()
    seen: list[bool] = []
    assert not scripted.pool.pinned
    with scripted.pool.pin():
        with scripted.pool.pin():
            assert scripted.pool.pinned
        assert scripted.pool.pinned
        thread = threading.Thread(target=lambda: seen.append(scripted.pool.pinned))
        thread.start()
        thread.join(5)
    assert seen == [False]
    assert not scripted.pool.pinned


# ---- who gives back what


def test_a_loan_given_back_once_more_does_nothing_to_the_next_borrowers_transaction() -> None:
    scripted = ScriptedPool()
    mine = scripted.pool.checkout()
    scripted.pool.checkin(mine)
    yours = scripted.pool.checkout()
    yours.connection.status = TransactionStatus.INTRANS
    scripted.pool.checkin(mine)
    assert yours.connection.status is TransactionStatus.INTRANS
    assert not yours.ended


@pytest.mark.parametrize("calm", [False, True])
def test_a_loan_that_two_threads_give_back_at_once_is_given_back_once(calm: bool) -> None:
    """Else two borrowers would get one connection."""

    class Driver(ScriptedDriver):
        def is_tidy(self, connection: Any, shape: Any) -> bool:
            if twice:
                scripted.pool.checkin(twice.pop())  # the other thread is faster
            return super().is_tidy(connection, shape)

    twice: list[Lease] = []
    scripted = ScriptedPool(Driver())
    for _ in range(2 if calm else 1):
        scripted.warm(1)
    lease = scripted.pool.checkout()
    scripted.pool._core.ledger.calm = calm
    twice.append(lease)
    scripted.pool.checkin(lease)
    audit(scripted.pool)
    assert scripted.counts() == {"idle": 1}
    assert scripted.pool.checkout().connection is not scripted.pool.checkout().connection


def test_putconn_gives_back_the_very_connection_of_several() -> None:
    scripted = ScriptedPool()
    raws = [scripted.pool.getconn() for _ in range(3)]
    scripted.pool.putconn(raws[1])
    [idle] = scripted.pool._core.ledger.idle
    assert idle.connection is raws[1]
    assert scripted.counts() == {"idle": 1, "lent": 2}


def test_what_statements_left_in_a_session_is_reset_by_its_return() -> None:
    scripted = ScriptedPool()
    scripted.warm(1)
    lease = scripted.pool.checkout()
    lease.entry.session.dirt = int(Effect.SETTINGS)
    scripted.pool.checkin(lease)
    assert len(scripted.driver.resets) == 1
    scripted.warm(1)
    assert len(scripted.driver.resets) == 1


def test_a_cursor_that_was_left_open_on_the_server_is_closed_by_the_return() -> None:
    class Cursor:
        closed = abandoned = False
        withhold = True

        def abandon(self) -> None:
            self.abandoned = True

    scripted = ScriptedPool()
    lease, cursor = scripted.pool.checkout(), Cursor()
    lease.entry.session.hold(cursor)
    scripted.pool.checkin(lease)
    assert cursor.abandoned
    assert len(scripted.driver.resets) == 1


def test_a_session_that_may_serve_no_more_has_all_connections_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scripted = ScriptedPool()
    scripted.warm(3)
    one, two = scripted.pool.checkout(), scripted.pool.checkout()
    one.entry.session.dirt = int(Effect.OUSTED)
    scripted.pool.checkin(one)
    assert scripted.counts() == {"lent": 1}
    assert not two.connection.closed
    scripted.pool.checkin(two)
    assert scripted.counts() == {}
    assert "all connections are replaced" in caplog.text


def test_why_a_connection_was_not_kept_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    scripted = ScriptedPool()
    one, two = scripted.pool.checkout(), scripted.pool.checkout()
    one.connection.status = TransactionStatus.ACTIVE
    two.connection.status = TransactionStatus.INTRANS
    two.connection.unanswered = True
    scripted.pool.checkin(one)
    assert "was given back in the middle of a statement; it is closed" in caplog.text
    scripted.pool.checkin(two)
    assert "could not be brought back and is closed: server closed" in caplog.text


def test_an_interrupted_reset_closes_the_connection_and_loses_no_slot() -> None:
    def interrupted(connection: object) -> None:
        raise KeyboardInterrupt

    scripted = ScriptedPool(max_size=1, reset=interrupted)
    lease = scripted.pool.checkout()
    with pytest.raises(KeyboardInterrupt):
        scripted.pool.checkin(lease)
    assert lease.connection.closed
    assert scripted.counts() == {}


def test_a_closed_pool_asks_no_server_to_tidy_up_what_it_closes() -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    lease.connection.status = TransactionStatus.INTRANS
    scripted.pool.close()
    scripted.driver.calls.clear()
    scripted.pool.checkin(lease)
    assert [method for method, _ in scripted.driver.calls] == ["close"]


def test_on_checkout_has_each_connection_that_is_lent_and_its_failure_closes_it() -> None:
    seen: list[int] = []

    def hook(connection: Any) -> None:
        seen.append(connection.number)
        if len(seen) == 3:
            raise DriverError("the hook failed")

    scripted = ScriptedPool(min_size=1, max_size=1, on_checkout=hook)
    scripted.warm(1)
    scripted.warm(1)
    with pytest.raises(DriverError, match="the hook failed"):
        scripted.pool.checkout()
    assert seen == [1, 1, 1]
    assert scripted.driver.opened[0].closed
    scripted.clock.advance(0.001)
    assert scripted.counts() == {"idle": 1}
    assert scripted.pool.get_stats()["returns_bad"] == 1


def test_after_the_return_of_an_evicted_connection_min_size_is_filled_again() -> None:
    scripted = ScriptedPool(min_size=1)
    scripted.warm(1)
    lease = scripted.pool.checkout()
    scripted.pool.evict(lease)
    scripted.pool.checkin(lease)
    scripted.clock.advance(0.001)
    assert scripted.counts() == {"idle": 1}


# ---- the queue


def test_a_request_that_was_refused_for_the_queues_length_is_an_error_in_the_statistics() -> None:
    scripted = ScriptedPool(max_size=1, max_waiting=1)
    scripted.pool.checkout()

    def second() -> None:
        with pytest.raises(TooManyRequests):
            scripted.pool.checkout()

    scripted.at(1, second)
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=2)
    assert scripted.pool.get_stats()["requests_errors"] == 2


def test_a_request_that_fell_out_of_the_queue_is_served_all_the_same() -> None:
    """Whoever was about to serve it was interrupted."""
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    scripted.at(1, scripted.pool._core.ledger.next_waiter)
    scripted.at(2, lambda: scripted.pool.checkin(lease))
    assert scripted.pool.checkout(timeout=10).connection is lease.connection
    audit(scripted.pool)


def test_a_request_that_was_refused_is_not_in_the_queue_any_more() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=1)
    assert scripted.pool.get_stats()["requests_waiting"] == 0
    scripted.pool.checkin(lease)
    assert scripted.counts() == {"idle": 1}


def test_a_wait_that_is_interrupted_passes_on_what_it_was_handed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()

    def wait(*_: object) -> bool:
        scripted.pool.checkin(lease)  # to the one who waits
        assert scripted.counts() == {"lent": 1}
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scripted.clock, "wait", wait)
        with pytest.raises(KeyboardInterrupt):
            scripted.pool.checkout()
    assert scripted.counts() == {"idle": 1}
    assert scripted.pool.get_stats()["requests_waiting"] == 0
    audit(scripted.pool)


def test_a_loan_dropped_in_line_comes_back_while_its_connections_earlier_loan_is_kept() -> None:
    """A wrapper keeps the Lease of its last loan for the next one."""

    class Driver(ScriptedDriver):
        def connect(self) -> ScriptedConnection:
            connection = super().connect()
            self.opened.clear()
            return connection

        def watch(self, connection: Any) -> Watch:
            return lambda _ms: False

    scripted = ScriptedPool(Driver(), max_size=1)
    kept = scripted.pool.checkout()
    scripted.pool.checkin(kept)
    kept.connection = None  # as the wrapper does
    scripted.pool.checkout()  # and forget it
    assert scripted.pool.checkout(timeout=5).connection.number == 1
    assert scripted.pool.get_stats()["reclaimed"] == 1
