"""Opening connections: how many, when, and for whom."""

import pytest

from django_psycopg_pooled.errors import OptionsError, PoolTimeout
from django_psycopg_pooled.pool.counters import Counters
from django_psycopg_pooled.pool.demand import Demand
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.testing import ScriptedDriver
from django_psycopg_pooled.testing.scripted import DriverError, RefusedError, ScriptedConnection
from tests.unit.scripted_pool import ScriptedPool, audit


def test_the_pool_opens_nothing_before_its_first_use() -> None:
    scripted = ScriptedPool(min_size=4)
    scripted.clock.advance(60)
    assert scripted.driver.opened == []


def test_the_first_use_opens_min_size_in_the_background() -> None:
    scripted = ScriptedPool(min_size=4)
    scripted.pool.checkout()
    scripted.clock.advance(0.001)
    assert scripted.counts() == {"lent": 1, "idle": 3}


def test_wait_returns_when_min_size_is_open() -> None:
    scripted = ScriptedPool(min_size=3)
    scripted.pool.wait(timeout=1)
    assert scripted.counts() == {"idle": 3}


@pytest.mark.parametrize("workers", [3, 0])
def test_wait_outlasts_a_server_that_starts_late(workers: int) -> None:
    driver = ScriptedDriver([DriverError("connection refused")] * 4)
    scripted = ScriptedPool(driver, min_size=2, num_workers=workers)
    before = scripted.clock.now
    scripted.pool.wait(timeout=10)
    assert scripted.counts() == {"idle": 2}
    assert scripted.clock.now - before < 3


@pytest.mark.parametrize("workers", [3, 0])
def test_wait_gives_up_on_a_server_that_does_not_come_and_leaves_the_pool_open(
    workers: int,
) -> None:
    driver = ScriptedDriver([DriverError("connection refused")] * 4)
    scripted = ScriptedPool(driver, min_size=1, num_workers=workers)
    with pytest.raises(PoolTimeout, match="connection refused"):
        scripted.pool.wait(timeout=0.2)
    scripted.clock.advance(5)
    scripted.pool.wait(timeout=5)
    assert scripted.counts() == {"idle": 1}


@pytest.mark.parametrize("workers", [3, 0])
def test_wait_raises_a_refusal_at_once(workers: int) -> None:
    refused = RefusedError("no such database")
    scripted = ScriptedPool(ScriptedDriver([refused]), min_size=1, num_workers=workers)
    before = scripted.clock.now
    with pytest.raises(RefusedError):
        scripted.pool.wait(timeout=10)
    assert scripted.clock.now == before


def test_a_connect_that_nobody_needs_any_more_is_not_begun() -> None:
    scripted = ScriptedPool(max_size=2)
    lease = scripted.pool.checkout()
    # The connect for the second request stands in the runtime's queue behind this return.
    scripted.runtime.submit(lambda: scripted.pool.checkin(lease))
    assert scripted.pool.checkout().connection is lease.connection
    assert len(scripted.driver.opened) == 1
    audit(scripted.pool)


def test_a_slot_is_reserved_before_the_connect_so_max_size_holds() -> None:
    scripted = ScriptedPool(max_size=3)
    for _ in range(3):
        scripted.pool.checkout()
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=1)
    assert len(scripted.driver.opened) == 3


def test_a_retired_connection_makes_room_for_the_one_who_waits() -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    scripted.pool.evict(lease)
    scripted.at(1, lambda: scripted.pool.checkin(lease))
    assert scripted.pool.checkout().connection.number == 2
    audit(scripted.pool)


def test_configure_runs_once_for_each_new_connection() -> None:
    seen: list[ScriptedConnection] = []
    scripted = ScriptedPool(configure=seen.append)
    scripted.warm(2)
    scripted.warm(2)
    assert [connection.number for connection in seen] == [1, 2]


def test_a_configure_that_leaves_autocommit_off_fails_with_a_clear_error() -> None:
    def configure(connection: ScriptedConnection) -> None:
        connection.autocommit = False

    scripted = ScriptedPool(configure=configure)
    with pytest.raises(OptionsError, match="`configure` of the pool 'shop' left"):
        scripted.pool.checkout()
    assert scripted.driver.opened[0].closed
    audit(scripted.pool)


def test_reconnect_failed_is_called_once_an_outage_with_the_pool() -> None:
    called: list[Pool] = []
    driver = ScriptedDriver([None, *[DriverError("connection refused")] * 500])
    scripted = ScriptedPool(
        driver, min_size=1, reconnect_timeout=60, reconnect_failed=called.append
    )
    lease = scripted.pool.checkout()
    lease.connection.dead = True
    scripted.pool.checkin(lease)
    scripted.clock.advance(59)
    assert called == []
    scripted.clock.advance(1000)
    assert called == [scripted.pool]
    tries = len(driver.script)
    scripted.clock.advance(1000)
    assert len(driver.script) == tries, "the pool goes on trying after it has given up"
    driver.script.clear()
    assert scripted.pool.checkout().connection.number == 2


def test_after_a_refusal_only_a_request_tries_again() -> None:
    driver = ScriptedDriver([RefusedError("wrong password")] * 2)
    scripted = ScriptedPool(driver, min_size=2)
    with pytest.raises(RefusedError):
        scripted.pool.checkout()
    scripted.clock.advance(1000)
    assert len(driver.script) == 1, "the pool knocks by itself, and may lock the account"
    with pytest.raises(RefusedError):
        scripted.pool.checkout()
    scripted.clock.advance(1)
    scripted.pool.checkout()
    scripted.clock.advance(0.001)
    assert scripted.counts() == {"lent": 1, "idle": 1}


@pytest.mark.parametrize("workers", [3, 0])
def test_wait_tries_again_after_a_refusal_that_was_mended(workers: int) -> None:
    driver = ScriptedDriver([RefusedError("wrong password")])
    scripted = ScriptedPool(driver, min_size=2, num_workers=workers)
    with pytest.raises(RefusedError):
        scripted.pool.checkout()
    before = scripted.clock.now
    scripted.pool.wait(timeout=10)
    assert scripted.counts() == {"idle": 2}
    assert scripted.clock.now - before < 1


def test_during_an_outage_one_connect_is_tried_at_a_time() -> None:
    driver = ScriptedDriver([None, None, None, *[DriverError("connection refused")] * 500])
    scripted = ScriptedPool(driver, min_size=3)
    scripted.pool.checkout()
    scripted.clock.advance(0.1)
    for connection in driver.opened:
        connection.dead = True
    before = len(driver.script)
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=10)
    # 0.1, 0.2, 0.4, 0.8, then every second or so
    assert 10 <= before - len(driver.script) <= 18


class TestDemand:
    """Whether to wait for a return or to connect."""

    def test_a_cold_pool_connects_at_once(self) -> None:
        demand = Demand(connect_s=0.150)
        assert demand.patience(place=1, lent=0) == 0
        assert demand.patience(place=1, lent=5) == 0, "nothing is known of loans yet"

    def test_a_warm_pool_of_short_loans_waits_but_no_longer_than_a_connect(self) -> None:
        demand = Demand(connect_s=0.150, loan_s=0.002)
        assert demand.patience(place=1, lent=5) == pytest.approx(0.0008)
        assert demand.patience(place=45, lent=5) == pytest.approx(0.036)
        assert demand.patience(place=300, lent=5) == 0.150

    def test_long_loans_are_not_waited_for(self) -> None:
        demand = Demand(connect_s=0.005, loan_s=0.100)
        assert demand.patience(place=1, lent=5) == 0

    def test_averages_start_with_the_first_observation_and_follow_slowly(self) -> None:
        demand, counters = Demand(), Counters()
        demand.saw_loans(counters)
        assert demand.loan_s == 0, "nothing has ended yet"
        counters.loans_num, counters.usage_s = 1, 1.0
        demand.saw_loans(counters)
        assert demand.loan_s == 1.0
        counters.loans_num, counters.usage_s = 2, 3.0
        demand.saw_loans(counters)
        demand.saw_loans(counters)
        assert demand.loan_s == pytest.approx(1.1)

    def test_many_loans_of_one_length_count_as_if_seen_one_by_one(self) -> None:
        one_by_one, at_once = Demand(loan_s=1.0), Demand(loan_s=1.0)
        for _ in range(7):
            one_by_one.saw_loans(Counters(loans_num=1, usage_s=3.0))
        at_once.saw_loans(Counters(loans_num=7, usage_s=21.0))
        assert at_once.loan_s == pytest.approx(one_by_one.loan_s)

    def test_it_goes_on_when_the_sums_are_started_anew(self) -> None:
        demand = Demand(loan_s=1.0)
        demand.saw_loans(Counters(loans_num=100, usage_s=100.0))
        demand.saw_loans(Counters(loans_num=1, usage_s=2.0))
        assert demand.loan_s == pytest.approx(1.1)


def test_who_waits_in_vain_for_a_return_gets_a_connect_of_its_own() -> None:
    """PAINS 17."""
    scripted = ScriptedPool(max_size=2)
    scripted.warm(1)
    core = scripted.pool._core
    core.demand.saw_loans(core.counters)  # those of warm()
    core.demand.connect_s, core.demand.loan_s = 0.150, 0.002
    lease = scripted.pool.checkout()
    before = scripted.clock.now
    other = scripted.pool.checkout()
    assert other.connection is not lease.connection
    assert scripted.clock.now - before == pytest.approx(0.004)
    audit(scripted.pool)


def test_after_a_restart_the_request_is_served_before_min_size_is_filled_again() -> None:
    opening: list[int] = []

    def configure(connection: ScriptedConnection) -> None:
        opening.append(scripted.pool._core.ledger.opening)

    scripted = ScriptedPool(min_size=10, configure=configure)
    scripted.pool.wait()
    for connection in scripted.driver.opened:
        connection.dead = True
    opening.clear()
    assert scripted.pool.checkout().connection.number == 11
    assert opening[0] == 1, "the request's connect had company"
    scripted.clock.advance(0.001)
    assert scripted.counts() == {"lent": 1, "idle": 9}
    assert max(opening) <= scripted.pool.options.num_workers
