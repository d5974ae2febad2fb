"""No request meets a dead connection, and few wait for a check."""

from typing import Any

import pytest

from django_psycopg_pooled.testing import ScriptedDriver
from django_psycopg_pooled.testing.scripted import DriverError, PoolTimeout, ScriptedConnection
from tests.unit.scripted_pool import ScriptedPool, audit


def test_a_dead_connection_is_replaced_before_it_is_lent() -> None:
    scripted = ScriptedPool()
    scripted.warm(1)
    scripted.driver.opened[0].dead = True
    assert scripted.pool.checkout().connection.number == 2
    assert scripted.pool.get_stats()["connections_lost"] == 1


def test_the_first_dead_one_takes_all_other_dead_ones_along_without_waiting() -> None:
    scripted = ScriptedPool(max_size=100)
    scripted.warm(100)
    for connection in scripted.driver.opened:
        connection.dead = True
    before = scripted.clock.now
    assert scripted.pool.checkout().connection.number == 101
    assert scripted.clock.now == before
    assert scripted.counts() == {"lent": 1}
    assert scripted.pool.get_stats()["connections_lost"] == 100
    audit(scripted.pool)


def test_survivors_of_a_restart_are_checked_before_their_next_loan_and_once() -> None:
    scripted = ScriptedPool()
    scripted.warm(3)
    scripted.driver.opened[2].dead = True
    lease = scripted.pool.checkout()
    assert lease.connection.number == 2
    assert scripted.driver.calls.count(("check", 2)) == 1
    scripted.pool.checkin(lease)
    scripted.pool.checkout()
    assert scripted.driver.calls.count(("check", 2)) == 1
    audit(scripted.pool)


def test_a_connection_that_broke_in_use_makes_the_pool_look_at_the_idle_ones() -> None:
    scripted = ScriptedPool()
    scripted.warm(3)
    lease = scripted.pool.checkout()
    for connection in scripted.driver.opened:
        connection.dead = True
    scripted.pool.checkin(lease)
    assert scripted.counts() == {}
    stats = scripted.pool.get_stats()
    assert (stats["returns_bad"], stats["connections_lost"]) == (1, 2)


def test_notices_on_an_idle_connection_are_read_and_no_harm() -> None:
    scripted = ScriptedPool()
    scripted.warm(1)
    scripted.driver.opened[0].notices = 3
    assert scripted.pool.checkout().connection.number == 1
    assert scripted.driver.count("absorb") == 3
    assert scripted.driver.opened[0].notices == 0


def test_a_connection_idle_for_longer_than_check_idle_is_checked_once() -> None:
    scripted = ScriptedPool(check_idle=30)
    scripted.warm(1)
    scripted.clock.advance(29.9)
    scripted.warm(1)
    assert scripted.driver.count("check") == 0
    scripted.clock.advance(30.1)
    scripted.warm(1)
    assert scripted.driver.count("check") == 1


def test_a_connection_that_does_not_answer_its_check_is_replaced() -> None:
    scripted = ScriptedPool(check_idle=30)
    scripted.warm(1)
    scripted.clock.advance(31)
    scripted.driver.opened[0].unanswered = True
    assert scripted.pool.checkout().connection.number == 2
    assert scripted.driver.opened[0].closed


class _SlowToFail(ScriptedDriver):
    """A check that is not answered takes a second."""

    scripted: ScriptedPool

    def check(self, connection: Any) -> None:
        if connection.unanswered:
            self.scripted.clock.now += 1
        super().check(connection)


def test_the_time_that_a_dead_connections_check_took_is_part_of_the_timeouts_text() -> None:
    driver = _SlowToFail()
    driver.scripted = scripted = ScriptedPool(driver, check_idle=30)
    scripted.warm(1)
    scripted.clock.advance(31)
    driver.opened[0].unanswered = True
    driver.script = [DriverError("gone")] * 100
    with pytest.raises(PoolTimeout, match=r"no connection to 'shop' within 4\.0 s"):
        scripted.pool.checkout(timeout=4)


def test_check_true_checks_at_every_checkout() -> None:
    scripted = ScriptedPool(check=True)
    scripted.warm(1)
    scripted.warm(1)
    scripted.warm(1)
    assert scripted.driver.count("check") == 2


def test_a_check_of_the_users_own_decides_about_new_and_idle_connections() -> None:
    asked: list[int] = []

    def check(connection: ScriptedConnection) -> None:
        asked.append(connection.number)
        if connection.number == 1 and len(asked) > 1:
            raise DriverError("this is a standby")

    scripted = ScriptedPool(check=check)
    scripted.warm(1)
    assert scripted.pool.checkout().connection.number == 2
    assert asked == [1, 1, 2]
    assert scripted.driver.count("check") == 0


def test_a_check_that_always_fails_backs_off_and_ends_in_its_own_error() -> None:
    def check(connection: ScriptedConnection) -> None:
        raise DriverError("this is a standby")

    scripted = ScriptedPool(ScriptedDriver(), check=check)
    with pytest.raises(DriverError, match="standby"):
        scripted.pool.checkout()
    assert len(scripted.driver.opened) == 1
    assert scripted.driver.opened[0].closed


def test_a_connection_past_its_lifetime_is_not_lent() -> None:
    scripted = ScriptedPool(max_lifetime=60, max_lifetime_jitter=0, num_workers=0)
    scripted.warm(1)
    scripted.clock.advance(60)
    assert scripted.pool.checkout().connection.number == 2


def test_a_connection_past_its_lifetime_is_closed_on_its_return() -> None:
    scripted = ScriptedPool(max_lifetime=60, max_lifetime_jitter=0)
    lease = scripted.pool.checkout()
    scripted.clock.advance(61)
    scripted.pool.checkin(lease)
    assert lease.connection.closed


def test_a_surplus_connection_idle_for_too_long_is_not_lent() -> None:
    scripted = ScriptedPool(max_idle=60, num_workers=0)
    scripted.warm(1)
    scripted.clock.advance(61)
    assert scripted.pool.checkout().connection.number == 2


def test_an_interrupted_check_loses_no_slot() -> None:
    def check(connection: ScriptedConnection) -> None:
        if connection.number == 1 and scripted.clock.now > 1000:
            raise KeyboardInterrupt

    scripted = ScriptedPool(check=check)
    scripted.warm(1)
    scripted.clock.advance(1)
    with pytest.raises(KeyboardInterrupt):
        scripted.pool.checkout()
    assert scripted.counts() == {}
    audit(scripted.pool)
