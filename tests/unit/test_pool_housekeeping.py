"""What happens to idle connections while time passes, with threads and without."""

import pytest

from django_psycopg_pooled.pool.states import State
from tests.unit.scripted_pool import ScriptedPool, audit


def test_idle_connections_above_min_size_are_closed_oldest_first() -> None:
    scripted = ScriptedPool(min_size=1, max_idle=600)
    scripted.warm(3)
    scripted.clock.advance(599)
    assert scripted.counts() == {"idle": 3}
    scripted.clock.advance(2)
    assert scripted.counts() == {"idle": 1}
    assert [c.number for c in scripted.driver.opened if not c.closed] == [3]


def test_one_that_is_used_now_and_then_stays_while_the_others_go() -> None:
    scripted = ScriptedPool(max_idle=600)
    scripted.warm(3)
    for _ in range(20):
        scripted.clock.advance(100)
        scripted.warm(1)
    assert scripted.counts() == {"idle": 1}


def test_old_connections_are_closed_while_idle_and_min_size_is_filled_again() -> None:
    scripted = ScriptedPool(min_size=2, max_lifetime=3600)
    scripted.warm(2)
    scripted.clock.advance(3700)
    assert scripted.counts() == {"idle": 2}
    assert [c.number for c in scripted.driver.opened if not c.closed] == [3, 4]


def test_lifetimes_are_spread_by_the_jitter() -> None:
    scripted = ScriptedPool(max_size=50, max_lifetime=1000, max_lifetime_jitter=0.2)
    scripted.warm(50)
    ages = [e.retire_at - e.opened_at for e in scripted.pool._core.ledger.entries]
    assert 800 <= min(ages) < 850
    assert 950 < max(ages) <= 1000


def test_keepalive_checks_idle_connections_and_does_not_make_them_younger() -> None:
    scripted = ScriptedPool(min_size=0, keepalive=120, max_idle=600, check_idle=30)
    scripted.warm(2)
    scripted.clock.advance(590)
    assert 2 * 4 <= scripted.driver.count("check") <= 2 * 5
    assert scripted.counts() == {"idle": 2}
    scripted.clock.advance(20)
    assert scripted.counts() == {}


def test_keepalive_finds_the_dead_before_a_request_does() -> None:
    scripted = ScriptedPool(min_size=1, keepalive=120)
    scripted.warm(1)
    scripted.driver.opened[0].unanswered = True
    scripted.clock.advance(121)
    assert scripted.driver.opened[0].closed
    scripted.clock.advance(1)
    assert scripted.pool.checkout().connection.number == 2


def test_an_idle_pool_of_min_size_without_duties_wakes_for_lifetimes_only() -> None:
    scripted = ScriptedPool(min_size=1, max_lifetime=3600)
    scripted.warm(1)
    scripted.clock.advance(2)  # the lookout's last look, after which nothing is lent
    [(due, _, _)] = scripted.runtime._timers
    scripted.clock.advance(3000)
    assert [timer[0] for timer in scripted.runtime._timers] == [due]
    assert due > scripted.clock.now


def test_without_threads_the_housekeeping_happens_at_checkin() -> None:
    scripted = ScriptedPool(max_idle=60, num_workers=0)
    scripted.warm(3)
    scripted.clock.advance(61)
    assert scripted.counts() == {"idle": 3}, "nobody is there to do it"
    scripted.warm(1)
    assert len(scripted.counts()) == 1
    assert scripted.pool.snapshot().size == 1
    audit(scripted.pool)


def test_without_threads_wait_opens_min_size_in_the_callers_thread() -> None:
    scripted = ScriptedPool(min_size=3, num_workers=0)
    scripted.pool.wait()
    assert scripted.counts() == {"idle": 3}


def test_a_housekeeping_that_fails_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    scripted = ScriptedPool(max_idle=60)
    scripted.warm(1)

    def broken() -> None:
        raise RuntimeError("a defect")

    scripted.pool._housekeeper.retire = broken  # type: ignore[method-assign]
    scripted.clock.advance(61)
    assert "housekeeping failed" in caplog.text
    del scripted.pool._housekeeper.retire
    scripted.clock.advance(1)
    assert scripted.counts() == {}


def test_connections_that_were_opened_ahead_are_looked_after_before_their_first_loan() -> None:
    scripted = ScriptedPool(min_size=2, keepalive=60)
    scripted.pool.wait()
    for connection in scripted.driver.opened:
        connection.dead = True
    scripted.clock.advance(61)
    assert scripted.counts() == {"idle": 2}
    assert all(connection.closed for connection in scripted.driver.opened[:2])


# ---- whoever is due first is seen to, whatever was due when the alarm was set


def test_what_comes_above_min_size_after_the_alarm_was_set_is_closed_after_max_idle() -> None:
    scripted = ScriptedPool(min_size=2, max_size=4, max_idle=600, max_lifetime=3600)
    scripted.pool.wait()  # until it has two idle connections, which will want nothing for an hour
    scripted.clock.advance(10)
    scripted.warm(4)
    scripted.clock.advance(610)
    assert scripted.counts() == {"idle": 2}


def test_an_older_one_that_was_lent_when_the_alarm_was_set_is_closed_at_its_age() -> None:
    scripted = ScriptedPool(max_lifetime=3600, max_lifetime_jitter=0, max_idle=9000)
    lease = scripted.pool.checkout()
    scripted.clock.advance(3000)
    scripted.warm(1)
    scripted.pool.checkin(lease)
    scripted.clock.advance(610)
    assert scripted.driver.opened[0].closed
    assert scripted.counts() == {"idle": 1}


class Runs:
    """Counts the runs of a pool's housekeeping."""

    def __init__(self, scripted: ScriptedPool) -> None:
        self.count = 0
        self._reclaim = scripted.pool._housekeeper._reclaimer.run
        scripted.pool._housekeeper._reclaimer = self  # type: ignore[assignment]

    def run(self) -> None:
        self.count += 1
        self._reclaim()


def test_one_that_is_lent_beyond_its_age_wakes_nobody_meanwhile() -> None:
    scripted = ScriptedPool(min_size=2, max_size=2, max_lifetime=3600, max_lifetime_jitter=0)
    lease = scripted.pool.checkout()
    scripted.clock.advance(1800)
    scripted.warm(1)
    runs = Runs(scripted)
    scripted.clock.advance(3500)
    assert lease.entry.retire_at < scripted.clock.now - 1600
    assert runs.count <= 4
    scripted.pool.checkin(lease)
    assert lease.entry.state is State.CLOSED


def test_the_runs_do_not_multiply_however_often_the_alarm_is_set_anew() -> None:
    scripted = ScriptedPool(min_size=1, leak_threshold=5.0, max_lifetime=600)
    runs = Runs(scripted)
    for _ in range(4 * 240):  # four hours
        lease = scripted.pool.checkout()
        scripted.clock.advance(7)
        scripted.pool.checkin(lease)
        scripted.clock.advance(8)
    assert runs.count < 2 * 4 * 240  # one for each loan that is told, and some for ages


def test_an_exception_from_outside_while_the_alarm_is_set_does_not_end_the_housekeeping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = ScriptedPool(max_idle=600)
    leases = [scripted.pool.checkout() for _ in range(2)]

    def interrupted(when: float, task: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scripted.runtime, "call_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scripted.pool.checkin(leases[0])
    scripted.pool.checkin(leases[1])
    scripted.clock.advance(601)
    assert scripted.counts() == {}
