"""What nobody can give back any more comes back by itself, and what somebody uses does not."""

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.errors import PoolTimeout
from django_psycopg_pooled.pool.borrower import Borrower, borrower
from django_psycopg_pooled.pool.entry import Entry, Lease
from django_psycopg_pooled.pool.ledger import Batch, Ledger
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.pool.reclaimer import AGAIN_S
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.pool.waiter import Waiter
from django_psycopg_pooled.testing import ScriptedConnection, ScriptedDriver
from tests.unit.scripted_pool import ScriptedPool, audit


def _in_thread_that_ends(function: Callable[[], object]) -> int:
    """Call *function* in a thread; that thread's number, when it has ended."""
    thread = threading.Thread(target=function, name="web-3")
    thread.start()
    thread.join(5)
    assert thread.ident is not None
    return thread.ident


def _lend_to_a_thread_that_ends(pool: Pool, count: int = 1, *, bound: bool = True) -> list[Lease]:
    """Loans whose thread has ended; whoever holds them stands for a wrapper in a cycle."""
    leases: list[Lease] = []
    _in_thread_that_ends(lambda: leases.extend(pool.checkout(bound=bound) for _ in range(count)))
    return leases


class _ForgetfulDriver(ScriptedDriver):
    """Refers to no connection that it has opened, as the real ones."""

    def connect(self) -> ScriptedConnection:
        connection = super().connect()
        self.opened[-1:] = [ScriptedConnection(connection.number)]
        return connection

    def watch(self, connection: Any) -> Watch:
        alive = weakref.ref(connection)
        return lambda _ms: alive() is None


def _reclaimed(pool: Pool) -> int:
    return pool.get_stats()["reclaimed"]


# ---- threads that have ended


@pytest.mark.parametrize("workers", [3, 0])
def test_a_request_gets_what_an_ended_thread_had(workers: int) -> None:
    """PAINS 4."""
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=2, num_workers=workers)
    lost = _lend_to_a_thread_that_ends(scripted.pool, 2)
    scripted.clock.advance(AGAIN_S)
    began = scripted.clock.now
    lease = scripted.pool.checkout(timeout=5)
    assert scripted.clock.now - began == 0
    assert lease.connection in [one.connection for one in lost]
    assert _reclaimed(scripted.pool) == 2
    assert len(scripted.driver.opened) == 2
    audit(scripted.pool)


def test_a_request_that_waits_already_gets_it_within_half_a_second() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    theirs = scripted.pool.checkout(bound=True)
    theirs.entry.holder = holder = Borrower()
    scripted.at(1.0, lambda: setattr(holder, "alive", False))
    began = scripted.clock.now
    mine = scripted.pool.checkout(timeout=5)
    assert mine.connection is theirs.connection
    assert 1.0 <= scripted.clock.now - began <= 1.5
    assert theirs.ended
    audit(scripted.pool)


def test_what_an_ended_thread_has_left_open_is_rolled_back_first() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    [lost] = _lend_to_a_thread_that_ends(scripted.pool)
    lost.connection.status = TransactionStatus.INTRANS
    lost.connection.autocommit = False
    lease = scripted.pool.checkout(timeout=5)
    assert lease.connection is lost.connection
    assert lease.connection.status is TransactionStatus.IDLE
    assert lease.connection.autocommit


def test_one_that_cannot_be_rolled_back_is_closed_and_its_slot_serves_the_request() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    [lost] = _lend_to_a_thread_that_ends(scripted.pool)
    lost.connection.status = TransactionStatus.ACTIVE
    assert scripted.pool.checkout(timeout=5).connection.number == 2
    assert lost.connection.closed
    audit(scripted.pool)


def test_who_has_lost_a_loan_cannot_give_it_back_to_its_next_borrower() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    [lost] = _lend_to_a_thread_that_ends(scripted.pool)
    mine = scripted.pool.checkout(timeout=5)
    scripted.pool.checkin(lost)
    del lost
    assert not mine.ended
    assert scripted.counts() == {"lent": 1}
    scripted.pool.checkin(mine)
    audit(scripted.pool)


def test_a_loan_that_other_threads_may_use_outlives_its_thread() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    shared = _lend_to_a_thread_that_ends(scripted.pool, bound=False)
    with pytest.raises(PoolTimeout, match=r"thread 'web-3 \(ended\)'"):
        scripted.pool.checkout(timeout=5)
    assert _reclaimed(scripted.pool) == 0
    scripted.pool.checkin(shared[0])
    assert scripted.counts() == {"idle": 1}


def test_a_thread_with_a_dead_ones_number_does_not_keep_its_loans_alive() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    kept: list[Lease] = []
    served: list[bool] = []
    number = _in_thread_that_ends(lambda: kept.append(scripted.pool.checkout(bound=True)))

    def again() -> None:
        if threading.get_ident() == number:
            lease = scripted.pool.checkout(timeout=1)
            served.append(lease.connection is kept[0].connection)
            scripted.pool.checkin(lease)

    for _ in range(50):  # numbers are used again at once, mostly
        _in_thread_that_ends(again)
        if served:
            break
    assert served == [True]
    assert _reclaimed(scripted.pool) == 1


def test_each_thread_is_one_borrower_which_ends_with_it() -> None:
    seen: list[Borrower] = []

    def look() -> None:
        assert borrower() is borrower()
        seen.append(borrower())
        assert seen[0].alive

    _in_thread_that_ends(look)
    assert not seen[0].alive
    assert seen[0].title() == "web-3 (ended)"
    assert borrower() is not seen[0]
    assert borrower().alive


def test_the_housekeeping_takes_back_too() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=3, max_idle=60)
    lost = _lend_to_a_thread_that_ends(scripted.pool)
    scripted.warm(1)
    scripted.clock.advance(61)
    assert lost[0].ended
    assert "lent" not in scripted.counts()


def test_requests_do_not_look_for_lost_loans_more_often_than_is_of_use() -> None:
    scripted = ScriptedPool(max_size=1)
    scripted.pool.checkout()
    runs: list[float] = []
    mend = scripted.pool._core.ledger.mend

    def count() -> Batch:
        runs.append(scripted.clock.now)
        return mend()

    scripted.pool._core.ledger.mend = count  # type: ignore[method-assign]
    scripted.clock.advance(1)
    for _ in range(100):
        with pytest.raises(PoolTimeout):
            scripted.pool.checkout(timeout=0)
    assert len(runs) == 1
    scripted.clock.advance(AGAIN_S)
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=0)
    assert len(runs) == 2


def test_while_a_lost_loan_is_tidied_nobody_is_told_that_he_has_it() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    lost = _lend_to_a_thread_that_ends(scripted.pool)
    scripted.clock.advance(AGAIN_S)
    with pytest.raises(PoolTimeout) as caught:
        scripted.pool.checkout(timeout=0)  # no time for the workers
    assert lost[0].ended
    assert "this very thread" not in str(caught.value)
    assert "already holds" not in str(caught.value)
    assert "thread 'web-3 (ended)'" in str(caught.value)


def test_what_somebody_still_refers_to_is_closed_but_not_under_his_statement() -> None:
    scripted = ScriptedPool(max_size=1)  # whose driver refers to it
    [lost] = _lend_to_a_thread_that_ends(scripted.pool)
    session = lost.entry.session
    session.last, session.began, session.ended = "SELECT 1", 2.0, 1.0
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=5)
    assert not lost.connection.closed
    session.ended = 3.0
    assert scripted.pool.checkout(timeout=5).connection.number == 2
    assert lost.connection.closed
    assert _reclaimed(scripted.pool) == 1


# ---- loans that were dropped


@pytest.mark.parametrize("workers", [3, 0])
def test_a_dropped_loan_comes_back(workers: int) -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1, num_workers=workers)
    scripted.pool.checkout()  # and forget it, as a wrapper does that is collected
    began = scripted.clock.now
    assert scripted.pool.checkout(timeout=5).connection.number == 1
    assert scripted.clock.now - began < 0.5
    assert _reclaimed(scripted.pool) == 1


def test_a_connection_that_somebody_refers_to_stays_with_him() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    raw = scripted.pool.getconn()
    for _ in range(3):
        with pytest.raises(PoolTimeout):
            scripted.pool.checkout(timeout=1)
    assert _reclaimed(scripted.pool) == 0
    del raw
    assert scripted.pool.checkout(timeout=1).connection.number == 1
    assert _reclaimed(scripted.pool) == 1


def test_what_getconn_lent_is_given_back_by_putconn_after_its_thread_has_ended() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    raws: list[object] = []
    _in_thread_that_ends(lambda: raws.append(scripted.pool.getconn()))
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=1)
    scripted.pool.putconn(raws[0])
    assert scripted.counts() == {"idle": 1}
    assert _reclaimed(scripted.pool) == 0
    audit(scripted.pool)


class _Cursor:
    """A named cursor: the session remembers it, and it refers to its connection."""

    closed = False
    withhold = False

    def __init__(self, connection: object) -> None:
        self.connection = connection


def test_a_named_cursor_that_somebody_reads_keeps_its_connection() -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    lease = scripted.pool.checkout()
    cursor = _Cursor(lease.connection)
    lease.entry.session.hold(cursor)
    del lease
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=1)
    del cursor
    assert scripted.pool.checkout(timeout=1).connection.number == 1


# ---- what is said


def test_each_place_that_loses_connections_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    scripted = ScriptedPool(_ForgetfulDriver(), max_size=1)
    for _ in range(3):
        kept = _lend_to_a_thread_that_ends(scripted.pool)
        scripted.pool.checkin(scripted.pool.checkout(timeout=5))
        assert kept[0].ended
        scripted.clock.advance(1)
    assert _reclaimed(scripted.pool) == 3
    said = [r for r in caplog.records if "never given back" in r.getMessage()]
    assert len(said) == 1
    assert said[0].levelno == logging.WARNING
    assert "'shop'" in said[0].getMessage()


def test_nothing_is_logged_when_nothing_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    scripted = ScriptedPool(max_size=1)
    lease = scripted.pool.checkout()
    with pytest.raises(PoolTimeout):
        scripted.pool.checkout(timeout=5)
    scripted.pool.checkin(lease)
    assert _reclaimed(scripted.pool) == 0
    assert caplog.records == []


# ---- what interrupted calls leave in the books


class Books:
    """A ledger with one healthy connection in each state; `alive` keeps their owners."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.holder = Borrower()
        self.idle = self.shelved()
        self.lent = self.shelved()
        self.lease = Lease(self.holder)
        self.ledger.lend(self.taken_off(self.lent), self.lease, 0.0, True)
        self.opening = self.ledger.reserve(0.0)
        checking, closing = self.shelved(), self.shelved()
        self.alive = [
            self.ledger.take([checking], State.CHECKING),
            self.ledger.take([closing], State.CLOSING),
            Batch([self.opening]),
        ]
        self.opening.owner = weakref.ref(self.alive[-1])
        self.healthy = set(self.ledger.entries)

    def shelved(self) -> Entry:
        """A new idle connection."""
        entry = self.ledger.reserve(0.0)
        self.ledger.opening -= 1
        self.ledger.give(entry, 0.0)
        return entry

    def taken_off(self, entry: Entry) -> Entry:
        """As lend_idle() begins."""
        self.ledger.idle.remove(entry)
        return entry

    def counts(self) -> tuple[int, int, int, int]:
        """What the books say: lent, opening, asking, and how many are idle."""
        ledger = self.ledger
        return ledger.lent, ledger.opening, ledger.asking, len(ledger.idle)


def _idle_but_not_shelved(books: Books) -> Entry:
    return books.taken_off(books.shelved())


def _lent_to_nobody(books: Books) -> Entry:
    entry = books.taken_off(books.shelved())
    books.ledger.lend(entry, Lease(books.holder), 0.0, True)
    entry.loan = 0
    return entry


def _lent_before_it_was_counted(books: Books) -> Entry:
    entry = books.taken_off(books.shelved())
    entry.state = State.LENT
    return entry


def _opening_for_nobody(books: Books) -> Entry:
    return books.ledger.reserve(0.0)


def _opening_for_one_who_is_gone(books: Books) -> Entry:
    entry = books.ledger.reserve(0.0)
    entry.owner = weakref.ref(Batch([entry]))
    return entry


def _checked_by_nobody(books: Books) -> Entry:
    [entry] = books.ledger.take([books.shelved()], State.CHECKING)
    return entry


def _closed_by_nobody(books: Books) -> Entry:
    [entry] = books.ledger.take([books.shelved()], State.CLOSING)
    return entry


STRAYS = [
    _idle_but_not_shelved,
    _lent_to_nobody,
    _lent_before_it_was_counted,
    _opening_for_nobody,
    _opening_for_one_who_is_gone,
    _checked_by_nobody,
    _closed_by_nobody,
]


def test_healthy_books_are_left_as_they_are() -> None:
    books = Books()
    before = [(entry, entry.state, entry.loan) for entry in books.ledger.entries]
    assert books.ledger.mend() == []
    assert [(entry, entry.state, entry.loan) for entry in books.ledger.entries] == before
    assert books.counts() == (1, 1, 0, 1)
    assert not books.lease.ended


@pytest.mark.parametrize("leave", STRAYS)
def test_a_stray_is_found_and_the_counts_are_right_again(leave: Callable[[Books], Entry]) -> None:
    books = Books()
    stray = leave(books)
    found = books.ledger.mend()
    assert found == [stray]
    assert stray.state is State.CLOSING
    assert books.counts() == (1, 1, 0, 1)
    assert set(books.ledger.entries) - {stray} == books.healthy
    assert books.ledger.mend() == [], "whoever found it is responsible for it"
    books.ledger.release(stray)
    assert books.ledger.size == len(books.healthy)


def test_a_stray_whose_finder_was_interrupted_is_found_again() -> None:
    books = Books()
    stray = _lent_to_nobody(books)
    assert books.ledger.mend()[0] is stray  # and forgotten at once
    assert books.ledger.mend() == [stray]


def test_many_strays_of_all_kinds_are_found_at_once() -> None:
    books = Books()
    strays = [leave(books) for leave in STRAYS for _ in range(3)]
    assert sorted(map(id, books.ledger.mend())) == sorted(map(id, strays))
    assert books.counts() == (1, 1, 0, 1)


def test_counts_that_are_wrong_are_put_right_even_if_no_connection_strays() -> None:
    books = Books()
    waiter = Waiter(Lease(books.holder), bound=True, asking=True)
    books.ledger.join(waiter)
    books.ledger.opening, books.ledger.asking = -1, 4
    assert books.ledger.mend() == []
    assert books.counts() == (1, 1, 1, 1)


@pytest.mark.parametrize("leave", STRAYS)
def test_a_request_gets_the_slot_of_a_stray(
    leave: Callable[[Books], Entry], caplog: pytest.LogCaptureFixture
) -> None:
    scripted = ScriptedPool(max_size=1)
    books = Books.__new__(Books)
    books.ledger, books.holder = scripted.pool._core.ledger, Borrower()
    leave(books)
    assert scripted.pool.snapshot().size == 1
    assert scripted.pool.checkout(timeout=5).connection.number == 1
    assert _reclaimed(scripted.pool) == 1
    assert "1 connections were left by interrupted calls" in caplog.text
    audit(scripted.pool)
