"""The leak threshold: a long loan is told once, and once more when it ends. PAINS 20.

The library's own words about it: brettwooldridge/HikariCP#465, #694 and #653.
"""

import re
from typing import Any

import pytest

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.errors import PoolTimeout
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.alarm import SHORTEST_NAP_S
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.pool.pool import Pool
from tests.unit.scripted_pool import ScriptedPool, audit


class Log:
    """What the pool has said about long loans."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def _said(self, pattern: str) -> list[str]:
        texts = [record.getMessage() for record in self._caplog.records]
        return [found[1] for text in texts if (found := re.search(pattern, text))]

    @property
    def begun(self) -> list[str]:
        """The ages at which loans were told, in seconds."""
        return self._said(r"has been lent for ([\d.]+) s")

    @property
    def ended(self) -> list[str]:
        """How long those that were told have lasted."""
        return self._said(r"was given back after ([\d.]+) s")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def _sees_all(scripted: ScriptedPool) -> None:
    """Give the pool an observer that names one place in the code."""

    class Observer:
        def here(self) -> Any:
            return "stack"

        def place(self, stack: Any) -> str:
            return "shop/views.py:88 in checkout" if stack == "stack" else "shop/pay.py:7 in wait"

        def lines(self, stack: Any) -> list[str]:
            return ["shop/views.py:88 in checkout", "shop/middleware.py:5 in __call__"]

        def now(self, thread_id: int) -> Any:
            return "live"

        def label(self, thread_id: int) -> str | None:
            return None

    scripted.pool = Pool("shop", scripted.driver.connect, scripted.driver,
                         PoolOptions.parse({"min_size": 0, "leak_threshold": 10}),
                         observer=Observer(), runtime=scripted.runtime,
                         clock=scripted.clock)  # fmt: skip


def test_a_slow_but_honest_loan_is_told_once_and_once_more_when_it_ends(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10)
    lease = scripted.pool.checkout()
    scripted.clock.advance(9.9)
    assert log.begun == []
    scripted.clock.advance(0.2)
    assert log.begun == ["10.0"]
    scripted.clock.advance(50)
    scripted.pool.checkin(lease)
    scripted.clock.advance(100)
    assert log.begun == ["10.0"]
    assert log.ended == ["60.1"]
    audit(scripted.pool)


def test_the_message_names_the_lines_and_where_the_thread_is_now(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scripted = ScriptedPool()
    _sees_all(scripted)
    lease = scripted.pool.checkout()
    scripted.clock.advance(11)
    scripted.pool.checkin(lease)
    begun, ended = (record.getMessage() for record in caplog.records)
    assert begun == (
        "pool 'shop': a connection has been lent for 10.0 s (leak_threshold is 10 s) to thread"
        " 'MainThread', borrowed at shop/views.py:88 in checkout, which is now at"
        " shop/pay.py:7 in wait\n"
        "shop/views.py:88 in checkout\n"
        "shop/middleware.py:5 in __call__"
    )
    assert ended == (
        "pool 'shop': the connection borrowed at shop/views.py:88 in checkout"
        " was given back after 11.0 s"
    )


def test_a_loan_below_the_threshold_is_never_told(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10)
    for _ in range(20):
        lease = scripted.pool.checkout()
        scripted.clock.advance(9)
        scripted.pool.checkin(lease)
        scripted.clock.advance(9)
    assert log.begun == log.ended == []


def test_without_a_threshold_nothing_is_told(log: Log) -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    scripted.clock.advance(1e5)
    scripted.pool.checkin(lease)
    assert log.begun == log.ended == []


def test_each_loan_of_a_connection_is_told_anew(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, max_size=1)
    for _ in range(3):
        lease = scripted.pool.checkout()
        scripted.clock.advance(20)
        scripted.pool.checkin(lease)
    assert len(log.begun) == 3
    assert log.ended == ["20.0"] * 3


def test_a_short_loan_after_a_long_one_is_not_told(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, max_size=1)
    for seconds in (20, 1, 1):
        lease = scripted.pool.checkout()
        scripted.clock.advance(seconds)
        scripted.pool.checkin(lease)
    assert (len(log.begun), log.ended) == (1, ["20.0"])


def test_many_long_loans_are_told_each_at_its_time(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, max_size=5)
    leases = []
    for _ in range(5):
        leases.append(scripted.pool.checkout())
        scripted.clock.advance(1)
    scripted.clock.advance(10)
    assert log.begun == ["10.0"] * 5
    for lease in leases:
        scripted.pool.checkin(lease)
    assert log.ended == ["15.0", "14.0", "13.0", "12.0", "11.0"]


def test_a_loan_that_goes_from_hand_to_hand_has_an_end_and_a_new_begin(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, max_size=1)
    first = scripted.pool.checkout()
    scripted.at(12, lambda: scripted.pool.checkin(first))
    second = scripted.pool.checkout(timeout=20)
    assert log.ended == ["12.0"]
    scripted.clock.advance(9)
    assert len(log.begun) == 1
    scripted.clock.advance(4)
    scripted.pool.checkin(second)
    assert len(log.begun) == 2
    assert log.ended == ["12.0", "13.0"]


def test_one_whose_connection_is_closed_on_its_return_has_ended_too(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, max_lifetime=5)
    lease = scripted.pool.checkout()
    scripted.clock.advance(11)
    scripted.pool.checkin(lease)
    assert lease.connection.closed
    assert log.ended == ["11.0"]


@pytest.mark.parametrize("status", [TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN])
def test_one_whose_connection_cannot_be_brought_back_has_ended_too(
    log: Log, status: TransactionStatus
) -> None:
    scripted = ScriptedPool(leak_threshold=10)
    lease = scripted.pool.checkout()
    scripted.clock.advance(11)
    lease.connection.status = status
    scripted.pool.checkin(lease)
    assert lease.connection.closed
    assert log.ended == ["11.0"]


def test_one_that_is_rolled_back_on_its_return_has_ended_too(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10)
    lease = scripted.pool.checkout()
    lease.connection.status = TransactionStatus.INTRANS
    scripted.clock.advance(11)
    scripted.pool.checkin(lease)
    assert log.ended == ["11.0"]


def test_a_loan_is_told_in_time_after_a_quiet_day(log: Log) -> None:
    """The housekeeping has set its alarm for later by then."""
    scripted = ScriptedPool(leak_threshold=10, max_lifetime=1e6, max_idle=0)
    scripted.warm(2)
    scripted.clock.advance(3600)
    scripted.pool.checkout()
    scripted.clock.advance(10 + SHORTEST_NAP_S)
    assert len(log.begun) == 1


def test_a_loan_is_told_in_time_beside_idle_connections(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10)
    scripted.warm(2)
    lease = scripted.pool.checkout()
    scripted.clock.advance(10 + SHORTEST_NAP_S)
    assert log.begun == ["10.0"]
    scripted.pool.checkin(lease)


def test_a_threshold_that_is_set_while_running_holds_for_loans_that_last_already(log: Log) -> None:
    scripted = ScriptedPool()
    lease = scripted.pool.checkout()
    scripted.clock.advance(100)
    scripted.pool.configure(leak_threshold=60)
    scripted.clock.advance(SHORTEST_NAP_S)
    assert log.begun == ["100.5"]
    scripted.clock.advance(1)
    scripted.pool.checkin(lease)
    assert log.ended == ["101.5"]


def test_a_threshold_that_is_lowered_while_running_holds_at_once(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=100)
    scripted.pool.checkout()
    scripted.clock.advance(20)
    scripted.pool.configure(leak_threshold=30)
    scripted.clock.advance(10)
    assert log.begun == ["30.0"]


def test_a_threshold_that_is_raised_or_taken_away_while_running_holds_at_once(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10)
    lease = scripted.pool.checkout()
    scripted.pool.configure(leak_threshold=100)
    scripted.clock.advance(50)
    assert log.begun == []
    scripted.pool.configure(leak_threshold=0)
    scripted.clock.advance(1000)
    scripted.pool.checkin(lease)
    assert log.begun == log.ended == []


def test_a_told_loan_has_its_end_told_after_the_threshold_was_taken_away(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10)
    lease = scripted.pool.checkout()
    scripted.clock.advance(20)
    scripted.pool.configure(leak_threshold=0)
    scripted.pool.checkin(lease)
    assert log.ended == ["20.0"]


# ---- without threads nobody looks but whoever uses the pool


def test_without_threads_a_long_loan_is_told_when_another_one_ends(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, num_workers=0)
    lease = scripted.pool.checkout()
    scripted.clock.advance(20)
    assert log.begun == [], "nobody is there to do it"
    scripted.warm(1)
    assert log.begun == ["20.0"]
    scripted.clock.advance(5)
    scripted.pool.checkin(lease)
    assert log.ended == ["25.0"]


def test_without_threads_the_only_loan_is_not_told(log: Log) -> None:
    """A limit: it has ended when the pool is next looked at."""
    scripted = ScriptedPool(leak_threshold=10, num_workers=0)
    lease = scripted.pool.checkout()
    scripted.clock.advance(20)
    scripted.pool.checkin(lease)
    assert log.begun == log.ended == []


# ---- with lost loans


def test_a_lost_loan_that_was_told_ends_when_it_is_taken_back(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, max_size=1)
    lost: Lease = scripted.pool.checkout(bound=True)
    scripted.clock.advance(20)
    holder = lost.entry.holder
    assert holder is not None
    holder.alive = False
    try:
        scripted.pool.checkin(scripted.pool.checkout(timeout=5))
    finally:
        holder.alive = True  # this thread's
    assert len(log.begun) == 1
    assert log.ended == ["20.0"]


def test_a_request_that_waits_in_vain_ends_no_loan(log: Log) -> None:
    scripted = ScriptedPool(leak_threshold=10, max_size=1)
    lease = scripted.pool.checkout()
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=20)
    assert (len(log.begun), log.ended) == (1, [])
    scripted.pool.checkin(lease)
