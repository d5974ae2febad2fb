"""Lending and taking back, in one thread and without a server."""

import pytest

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.errors import NotBorrowed, PoolClosed, PoolTimeout, TooManyRequests
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.states import IllegalMove, State
from django_psycopg_pooled.pool.waiter import Waiter
from django_psycopg_pooled.testing import ScriptedDriver
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
