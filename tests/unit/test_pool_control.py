"""What an operator does to a running pool."""

import logging
from typing import Any

import pytest

from django_psycopg_pooled.errors import OptionsError, PoolTimeout
from django_psycopg_pooled.pool.entry import Lease
from tests.unit.scripted_pool import ScriptedPool, audit


def test_a_smaller_max_size_closes_idle_ones_now_and_lent_ones_on_their_return() -> None:
    scripted = ScriptedPool(max_size=5)
    scripted.warm(5)
    leases = [scripted.pool.checkout() for _ in range(3)]
    scripted.pool.configure(max_size=2)
    assert scripted.counts() == {"lent": 3}
    for lease in leases:
        scripted.pool.checkin(lease)
    assert scripted.counts() == {"idle": 2}
    audit(scripted.pool)


def test_a_larger_max_size_lets_the_next_request_connect() -> None:
    scripted = ScriptedPool(max_size=1)
    scripted.pool.checkout()
    scripted.at(1, lambda: scripted.pool.configure(max_size=2))
    assert scripted.pool.checkout().connection.number == 2


def test_a_larger_min_size_is_filled_at_once() -> None:
    scripted = ScriptedPool()
    scripted.warm(1)
    scripted.pool.resize(3, 8)
    scripted.clock.advance(0.001)
    assert scripted.counts() == {"idle": 3}
    assert (scripted.pool.options.min_size, scripted.pool.options.max_size) == (3, 8)


def test_resize_with_one_size_fixes_it() -> None:
    scripted = ScriptedPool()
    scripted.pool.resize(4)
    assert (scripted.pool.options.min_size, scripted.pool.options.max_size) == (4, 4)


@pytest.mark.parametrize("sizes", [("x",), (None,), (20_000,), ("x", 4), (True,)])
def test_resize_refuses_what_is_no_size_in_configures_words(sizes: tuple[Any, ...]) -> None:
    scripted = ScriptedPool()
    before = scripted.pool.options
    with pytest.raises(OptionsError) as caught:
        scripted.pool.resize(*sizes)
    assert caught.value.problems == [
        f"min_size is {sizes[0]!r}; it must be a whole number of connections from 0 to 10000."
    ]
    assert scripted.pool.options == before


def test_a_refused_change_changes_nothing() -> None:
    scripted = ScriptedPool()
    before = scripted.pool.options
    with pytest.raises(OptionsError) as caught:
        scripted.pool.configure(max_size=20, timeout=-1, num_workers=1, max_sise=3)
    assert scripted.pool.options is before
    assert len(caught.value.problems) == 3


def test_a_shorter_idle_limit_holds_for_those_that_are_idle_now() -> None:
    scripted = ScriptedPool(max_idle=600)
    scripted.warm(2)
    scripted.clock.advance(10)
    scripted.pool.configure(max_idle=30)
    scripted.clock.advance(15)
    assert scripted.counts() == {"idle": 2}
    scripted.clock.advance(6)
    assert scripted.counts() == {}


def test_drain_replaces_idle_ones_now_and_lent_ones_on_their_return() -> None:
    scripted = ScriptedPool(min_size=1)
    scripted.warm(2)
    lease = scripted.pool.checkout()
    scripted.pool.drain()
    assert scripted.driver.opened[0].closed
    assert not lease.connection.closed
    scripted.pool.checkin(lease)
    assert lease.connection.closed
    scripted.clock.advance(0.001)
    assert scripted.pool.checkout().connection.number == 3


def test_a_paused_pool_lends_nothing_and_resume_serves_who_waited() -> None:
    scripted = ScriptedPool()
    scripted.warm(2)
    assert scripted.pool.pause()
    with pytest.raises(PoolTimeout, match=r"The pool is paused\."):
        scripted.pool.checkout(timeout=5)
    scripted.at(2, scripted.pool.resume)
    before = scripted.clock.now
    assert scripted.pool.checkout().connection.number == 2
    assert scripted.clock.now - before == pytest.approx(2)
    audit(scripted.pool)


def test_pause_waits_for_what_is_lent() -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    assert not scripted.pool.pause()
    assert not scripted.pool.pause(timeout=1)
    scripted.at(2, lambda: scripted.pool.checkin(lease))
    assert scripted.pool.pause(timeout=5)
    assert scripted.pool._core.signals == []


@pytest.mark.parametrize("workers", [3, 0])
def test_wait_on_a_paused_pool_waits_for_resume(workers: int) -> None:
    scripted = ScriptedPool(min_size=1, num_workers=workers)
    scripted.pool.pause()
    before = scripted.clock.now
    with pytest.raises(PoolTimeout, match=r"The pool is paused\."):
        scripted.pool.wait(timeout=5)
    assert scripted.clock.now - before == pytest.approx(5)


def test_check_drops_the_dead_and_keeps_the_order_of_the_others() -> None:
    scripted = ScriptedPool()
    scripted.warm(4)
    scripted.driver.opened[1].unanswered = True
    scripted.driver.opened[2].dead = True
    assert scripted.pool.check() == 1  # the other one was seen to be dead by a look at its socket
    assert [e.number for e in scripted.pool._core.ledger.idle] == [1, 4]
    audit(scripted.pool)


def test_stats_have_psycopg_pools_keys_and_pop_starts_the_sums_anew() -> None:
    scripted = ScriptedPool(min_size=1, max_size=4)
    lease = scripted.pool.checkout()
    scripted.clock.advance(2.5)
    scripted.pool.checkin(lease)
    stats = scripted.pool.pop_stats()
    assert stats == {
        "pool_min": 1,
        "pool_max": 4,
        "pool_size": 1,
        "pool_available": 1,
        "requests_waiting": 0,
        "requests_num": 1,
        "requests_queued": 1,
        "requests_wait_ms": 0,
        "requests_errors": 0,
        "usage_ms": 2500,
        "returns_bad": 0,
        "idle_in_transaction": 0,
        "reclaimed": 0,
        "connections_num": 1,
        "connections_ms": 0,
        "connections_errors": 0,
        "connections_lost": 0,
    }
    assert scripted.pool.get_stats()["requests_num"] == 0
    assert scripted.pool.get_stats()["pool_size"] == 1


def test_as_table_shows_each_connection_and_who_has_it() -> None:
    scripted = ScriptedPool()
    scripted.warm(2)
    scripted.clock.advance(200)
    scripted.pool.checkout()
    assert scripted.pool.as_table() == (
        "Pool 'shop': 1 lent, 1 idle, 0 opening of 10; 0 waiting\n"
        "\n"
        "#  state  server pid  for    age    uses  thread\n"
        "1  idle        10001  3 min  3 min     1\n"
        "2  lent        10002  0.0 s  3 min     2  MainThread\n"
        "   idle"
    )


# ---- what the very next return heeds, however many before it had nothing to see to


def lent_by_a_calm_pool(scripted: ScriptedPool, count: int) -> list[Lease]:
    """Loans of a pool whose returns have nothing to see to."""
    scripted.warm(count)
    scripted.warm(count)
    leases = [scripted.pool.checkout() for _ in range(count)]
    assert scripted.pool._core.ledger.calm
    return leases


def test_the_next_return_serves_who_has_begun_to_wait() -> None:
    scripted = ScriptedPool(max_size=2)
    one, two = lent_by_a_calm_pool(scripted, 2)
    before = scripted.clock.now
    scripted.at(1, lambda: scripted.pool.checkin(one))
    assert scripted.pool.checkout().connection is one.connection
    scripted.at(1, lambda: scripted.pool.checkin(two))
    assert scripted.pool.checkout().connection is two.connection
    assert scripted.clock.now - before == pytest.approx(2)
    audit(scripted.pool)


def test_the_returns_after_pause_tell_it_when_all_have_come_back() -> None:
    scripted = ScriptedPool()
    before = scripted.clock.now
    for number, lease in enumerate(lent_by_a_calm_pool(scripted, 3), 1):
        scripted.at(number, lambda lease=lease: scripted.pool.checkin(lease))  # type: ignore[misc]
    assert scripted.pool.pause(timeout=60)
    assert scripted.clock.now - before == pytest.approx(3)
    audit(scripted.pool)


def test_the_returns_after_close_close_what_comes_back() -> None:
    scripted = ScriptedPool()
    leases = lent_by_a_calm_pool(scripted, 2)
    scripted.pool.close()
    for lease in leases:
        scripted.pool.checkin(lease)
        assert lease.connection.closed
    assert scripted.counts() == {}


def test_the_returns_after_a_smaller_max_size_close_what_is_too_much() -> None:
    scripted = ScriptedPool(max_size=3)
    leases = lent_by_a_calm_pool(scripted, 3)
    scripted.pool.configure(max_size=1)
    for lease in leases:
        scripted.pool.checkin(lease)
    assert [lease.connection.closed for lease in leases] == [True, True, False]
    audit(scripted.pool)


def test_the_returns_after_drain_replace_what_was_lent_and_no_more() -> None:
    scripted = ScriptedPool()
    leases = lent_by_a_calm_pool(scripted, 2)
    scripted.pool.drain()
    for lease in leases:
        scripted.pool.checkin(lease)
        assert lease.connection.closed
    scripted.warm(1)
    assert scripted.counts() == {"idle": 1}


def test_the_return_of_a_loan_that_was_told_to_last_too_long_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    scripted = ScriptedPool(leak_threshold=10)
    late, other = lent_by_a_calm_pool(scripted, 2)
    scripted.clock.advance(9)
    scripted.pool.checkin(other)
    assert scripted.pool._core.ledger.calm
    scripted.clock.advance(2)
    assert "has been lent for" in caplog.text
    scripted.warm(1)  # must not make the pool forget that one is to be told of
    assert "was given back" not in caplog.text
    scripted.pool.checkin(late)
    assert caplog.text.count("was given back after 11.0 s") == 1


def test_the_return_after_a_housekeeping_that_found_all_lent_has_it_come_again() -> None:
    scripted = ScriptedPool(max_idle=60)
    leases = lent_by_a_calm_pool(scripted, 2)
    scripted.clock.advance(600)
    for lease in leases:
        scripted.pool.checkin(lease)
    scripted.clock.advance(59)
    assert scripted.counts() == {"idle": 2}
    scripted.clock.advance(2)
    assert scripted.counts() == {}


def test_the_return_after_a_shorter_idle_limit_was_set_has_it_heeded() -> None:
    scripted = ScriptedPool(max_idle=600)
    leases = lent_by_a_calm_pool(scripted, 2)
    scripted.pool.configure(max_idle=30)
    for lease in leases:
        scripted.pool.checkin(lease)
    scripted.clock.advance(31)
    assert scripted.counts() == {}


def test_the_return_of_an_evicted_connection_closes_it_in_a_calm_pool_too() -> None:
    scripted = ScriptedPool()
    one, two = lent_by_a_calm_pool(scripted, 2)
    scripted.pool.evict(one)
    scripted.pool.checkin(one)
    scripted.pool.checkin(two)
    assert (one.connection.closed, two.connection.closed) == (True, False)


def test_without_threads_each_return_looks_whether_housekeeping_is_due() -> None:
    scripted = ScriptedPool(max_idle=60, num_workers=0)
    scripted.warm(3)
    scripted.warm(3)
    lease = scripted.pool.checkout()
    scripted.clock.advance(61)
    scripted.pool.checkin(lease)
    assert scripted.counts() == {"idle": 1}


def test_what_comes_back_to_a_paused_pool_is_lent_when_it_is_resumed() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    before = scripted.clock.now
    scripted.pool.pause()
    scripted.at(1, lambda: scripted.pool.checkin(lease))
    scripted.at(5, scripted.pool.resume)
    again = scripted.pool.checkout()
    assert scripted.clock.now - before == pytest.approx(5)
    scripted.clock.advance(2)
    scripted.pool.checkin(again)
    assert scripted.pool.get_stats()["usage_ms"] == 1000 + 2000
    audit(scripted.pool)


def test_check_leaves_the_connection_that_came_back_last_to_be_lent_first() -> None:
    scripted = ScriptedPool()
    leases = [scripted.pool.checkout() for _ in range(4)]
    for lease in leases:
        scripted.clock.advance(1)
        scripted.pool.checkin(lease)
    scripted.driver.opened[2].unanswered = True
    assert scripted.pool.check() == 1
    assert [e.number for e in scripted.pool._core.ledger.idle] == [1, 2, 4]
    audit(scripted.pool)


def test_a_check_of_the_newest_alone_puts_it_back_where_it_was() -> None:
    scripted = ScriptedPool(keepalive=100)
    one, two = scripted.pool.checkout(), scripted.pool.checkout()
    scripted.pool.checkin(one)
    scripted.clock.advance(50)
    scripted.pool.checkin(two)
    scripted.clock.advance(51)  # the older one is checked
    assert scripted.driver.calls[-1] == ("check", 1)
    assert scripted.pool.checkout().connection is two.connection
