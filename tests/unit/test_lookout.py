"""Who is idle in a transaction: told once a spell, with its end, and counted. On a manual clock."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.facts.pool import ConnectionSnapshot
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.borrower import Borrower
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.runtime.inline import InlineRuntime
from django_psycopg_pooled.testing import ManualClock, ManualRuntime, ScriptedDriver
from tests.unit.scripted_pool import audit

THRESHOLD = 3.0
ON = {"idle_in_transaction_threshold": THRESHOLD}
LATE = 1.0  # by how much a report may come later: the time between two looks


class Observer:
    """A raw stack is its own text."""

    def here(self) -> Any:
        return "shop/views.py:1 in view"

    def place(self, stack: Any) -> str:
        return str(stack)

    def lines(self, stack: Any) -> list[str]:
        return [str(stack), "shop/middleware.py:5 in __call__"]

    def now(self, thread_id: int) -> Any:
        return "shop/pay.py:7 in charge"

    def label(self, thread_id: int) -> str | None:
        return "POST /checkout"


class Shop:
    """A pool with the default threshold, and all that its listener and the log have heard."""

    def __init__(self, log: pytest.LogCaptureFixture, **options: Any) -> None:
        self._log = log
        self.heard: list[ConnectionSnapshot] = []
        self.fails = False
        self._leases: list[Lease] = []  # one that is dropped would be taken back
        self.driver = ScriptedDriver()
        self.runtime = InlineRuntime() if options.get("num_workers") == 0 else ManualRuntime()
        self.clock = ManualClock(self.runtime)
        options = {"min_size": 0, "max_size": 10, **ON, **options}
        self.pool = Pool("shop", self.driver.connect, self.driver, PoolOptions.parse(options),
                         observer=Observer(), listener=self, runtime=self.runtime,
                         clock=self.clock)  # fmt: skip

    def timed_out(self) -> None:
        raise AssertionError

    def idle_in_transaction(self, facts: ConnectionSnapshot) -> None:
        self.heard.append(facts)
        if self.fails:
            raise RuntimeError("a listener's defect")

    def looked(self) -> None:
        pass

    def begin(self, at: str = "shop/views.py:88 in checkout") -> Lease:
        """Borrow, and run a statement in a transaction that was begun in that line."""
        lease = self.pool.checkout()
        self._leases.append(lease)
        session = lease.entry.session
        session.transaction_stack, session.transaction_at = at, self.clock.now
        lease.connection.status = TransactionStatus.INTRANS
        self.execute(lease)
        return lease

    def execute(self, lease: Lease, lasts: float = 0.0) -> None:
        """Run a statement that takes so many seconds."""
        session = lease.entry.session
        session.last = "shop/views.py:90 in checkout"
        session.began = self.clock.now
        if lasts:
            lease.connection.status = TransactionStatus.ACTIVE
            self.clock.advance(lasts)
            lease.connection.status = TransactionStatus.INTRANS
        session.ended = self.clock.now

    def commit(self, lease: Lease) -> None:
        session = lease.entry.session
        lease.connection.status = TransactionStatus.IDLE
        session.settled_at = self.clock.now
        session.transaction_stack = session.transaction_at = None

    def end(self, lease: Lease) -> None:
        self.commit(lease)
        self.pool.checkin(lease)

    def _said(self, pattern: str) -> list[str]:
        texts = [record.getMessage() for record in self._log.records]
        return [found[1] for text in texts if (found := re.search(pattern, text))]

    @property
    def begun(self) -> list[float]:
        """For how long each was idle when it was logged."""
        return list(map(float, self._said(r"idle in transaction for ([\d.]+) s")))

    @property
    def ended(self) -> list[str]:
        """For how long those that were logged were idle in all."""
        return self._said(r"was idle for ([\d.]+) s in all")

    @property
    def counted(self) -> int:
        return self.pool.get_stats()["idle_in_transaction"]

    @property
    def is_looking(self) -> bool:
        return self.runtime.run_due(self.clock.now) <= self.clock.now + LATE


MakeShop = Callable[..., Shop]


@pytest.fixture
def make_shop(caplog: pytest.LogCaptureFixture) -> MakeShop:
    return lambda **options: Shop(caplog, **options)


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop()


# ---- what is told, and when


def test_a_transaction_that_is_idle_is_told_once_between_the_threshold_and_a_second_later(
    shop: Shop,
) -> None:
    shop.begin()
    shop.clock.advance(THRESHOLD - 0.1)
    assert shop.begun == []
    shop.clock.advance(LATE + 0.1)
    assert len(shop.begun) == 1
    assert THRESHOLD <= shop.begun[0] <= THRESHOLD + LATE
    shop.clock.advance(600)
    assert len(shop.begun) == len(shop.heard) == shop.counted == 1


def test_the_report_names_the_four_places_the_work_and_the_server_process(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.begin()
    shop.clock.advance(THRESHOLD + LATE)
    [text] = [record.getMessage() for record in caplog.records]
    outer = "; from shop/middleware.py:5 in __call__"
    assert text.splitlines() == [
        f"pool 'shop': idle in transaction for {shop.begun[0]:.1f} s: thread 'MainThread'"
        " (POST /checkout), server process 10001",
        f"  connection borrowed at shop/views.py:1 in view{outer}",
        f"  transaction begun at shop/views.py:88 in checkout{outer}",
        f"  last statement at shop/views.py:90 in checkout{outer}",
        f"  thread is now at shop/pay.py:7 in charge{outer}",
    ]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 1.0, 3.0, 30.0])
def test_a_report_is_never_later_than_a_look(make_shop: MakeShop, threshold: float) -> None:
    shop = make_shop(idle_in_transaction_threshold=threshold)
    shop.begin()
    shop.clock.advance(threshold + min(LATE, max(threshold / 3, 0.1)) + 0.01)
    assert len(shop.heard) == 1
    assert (shop.heard[0].quiet_s or 0.0) >= threshold


def test_a_failed_transaction_that_stays_open_is_told_too(shop: Shop) -> None:
    lease = shop.begin()
    lease.connection.status = TransactionStatus.INERROR
    shop.clock.advance(THRESHOLD + LATE)
    assert shop.heard[0].activity == "idle in transaction (aborted)"


def test_a_transaction_in_which_statements_go_on_is_never_told(shop: Shop) -> None:
    lease = shop.begin()
    for _ in range(20):
        shop.clock.advance(THRESHOLD - 0.1)
        shop.execute(lease)
    assert shop.begun == []


def test_a_long_statement_is_no_idle_transaction(shop: Shop) -> None:
    lease = shop.begin()
    shop.execute(lease, lasts=60)
    shop.clock.advance(THRESHOLD - 0.1)
    assert shop.begun == []


def test_a_loan_without_a_transaction_is_never_told(shop: Shop) -> None:
    shop.execute(shop.pool.checkout())
    shop.clock.advance(600)
    assert shop.begun == []


def test_a_transaction_without_a_statement_of_ours_counts_from_the_loan_on(shop: Shop) -> None:
    """psycopg2's copy_from() and lobject() begin one that no cursor of ours has seen."""
    lease = shop.begin()
    shop.end(lease)
    shop.clock.advance(600)
    shop.pool.checkout().connection.status = TransactionStatus.INTRANS
    shop.clock.advance(THRESHOLD - 0.1)
    assert shop.begun == []
    shop.clock.advance(LATE + 0.1)
    assert len(shop.begun) == 1


def test_several_are_told_each_with_its_own_age(shop: Shop) -> None:
    for number in range(5):
        shop.begin(f"shop/views.py:{number} in view")
        shop.clock.advance(0.5)
    shop.clock.advance(THRESHOLD + LATE)
    assert sorted(facts.transaction_at for facts in shop.heard) == [
        f"shop/views.py:{number} in view" for number in range(5)
    ]
    assert all(THRESHOLD <= idle <= THRESHOLD + LATE for idle in shop.begun)


def test_without_a_threshold_nothing_is_told(make_shop: MakeShop) -> None:
    shop = make_shop(idle_in_transaction_threshold=0)
    shop.begin()
    shop.clock.advance(600)
    assert shop.begun == []
    assert shop.heard == []


# ---- what nobody can give back


@pytest.mark.parametrize("threshold", [0, 0.3, 30])
def test_a_loan_that_nobody_can_end_is_taken_back_within_a_second(
    make_shop: MakeShop, threshold: float
) -> None:
    shop = make_shop(idle_in_transaction_threshold=threshold)
    lost = shop.begin()
    kept = shop.begin()
    lost.entry.bound, lost.entry.holder = True, Borrower()
    shop.clock.advance(3 * LATE)
    assert not lost.ended
    assert lost.entry.holder is not None
    lost.entry.holder.alive = False  # as at the end of a thread
    shop.clock.advance(LATE)
    assert lost.ended
    assert not kept.ended
    assert lost.connection.closed, "the test refers to it, as who has got a cursor does"
    assert shop.pool.get_stats()["reclaimed"] == 1
    audit(shop.pool)


# ---- how it ends


def test_the_end_is_told_with_the_true_duration_when_the_transaction_is_committed(
    shop: Shop,
) -> None:
    lease = shop.begin()
    shop.clock.advance(7.3)
    shop.end(lease)
    shop.clock.advance(LATE)
    assert shop.ended == ["7.3"]


def test_the_end_is_told_with_the_true_duration_when_the_transaction_goes_on(shop: Shop) -> None:
    lease = shop.begin()
    shop.clock.advance(7.3)
    shop.execute(lease, lasts=5)
    shop.clock.advance(LATE)
    assert shop.ended == ["7.3"]
    assert len(shop.begun) == 1


def test_the_end_is_true_too_when_the_pool_rolled_back_what_came_back_open(shop: Shop) -> None:
    lease = shop.begin()
    shop.clock.advance(7.3)
    shop.pool.checkin(lease)
    shop.clock.advance(LATE)
    assert shop.ended == ["7.3"]


def test_the_end_is_true_too_when_the_next_borrower_is_in_a_transaction_already(
    shop: Shop,
) -> None:
    lease = shop.begin()
    shop.clock.advance(7.3)
    shop.end(lease)
    shop.clock.advance(0.2)
    shop.begin()
    shop.clock.advance(LATE)
    assert shop.ended == ["7.3"]


def test_one_that_was_too_short_to_be_told_has_no_end(shop: Shop) -> None:
    lease = shop.begin()
    shop.clock.advance(THRESHOLD - 0.5)
    shop.end(lease)
    shop.clock.advance(60)
    assert not shop.begun
    assert not shop.ended


def test_one_transaction_is_told_again_for_its_next_spell(shop: Shop) -> None:
    lease = shop.begin()
    for _ in range(3):
        shop.clock.advance(20)
        shop.execute(lease)
    shop.clock.advance(LATE)
    assert len(shop.begun) == shop.counted == 3
    assert shop.ended == ["20.0"] * 3


# ---- not too often


def test_the_same_line_is_logged_once_in_ten_seconds_and_counted_and_heard_each_time(
    shop: Shop,
) -> None:
    leases = [shop.begin() for _ in range(5)]
    shop.clock.advance(THRESHOLD + LATE)
    assert (len(shop.begun), shop.counted, len(shop.heard)) == (1, 5, 5)
    for lease in leases:
        shop.end(lease)
    shop.clock.advance(LATE)
    assert len(shop.ended) == 1, "only what was logged has an end"
    shop.clock.advance(10)
    shop.begin()
    shop.clock.advance(THRESHOLD + LATE)
    assert (len(shop.begun), shop.counted) == (2, 6)


def test_other_lines_are_logged_meanwhile(shop: Shop) -> None:
    shop.begin("shop/views.py:1 in one")
    shop.begin("shop/views.py:2 in two")
    shop.clock.advance(THRESHOLD + LATE)
    assert len(shop.begun) == 2


def test_however_many_lines_there_are_they_are_not_all_remembered(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_psycopg_pooled.pool.lookout.PLACES", 3)
    shop = make_shop()
    for number in range(10):
        lease = shop.begin(f"<cell {number}>")
        shop.clock.advance(THRESHOLD + LATE)
        shop.end(lease)
    assert len(shop.begun) == 10
    assert len(shop.pool._lookout._logged_at) <= 3


# ---- only as long as there is something to look at


def test_nobody_looks_when_nothing_is_lent_and_somebody_does_from_the_next_checkout_on(
    shop: Shop,
) -> None:
    assert not shop.is_looking
    for _ in range(3):
        lease = shop.begin()
        assert shop.is_looking
        shop.clock.advance(20)
        shop.end(lease)
        shop.clock.advance(2 * LATE)
        assert not shop.is_looking
    assert len(shop.begun) == len(shop.ended) == 3
    audit(shop.pool)


def test_there_is_one_look_at_a_time_though_a_loan_begins_while_it_ends(shop: Shop) -> None:
    """Two would each go on by themselves, for good, and each tell what is idle."""
    looks: list[float] = []
    look = shop.pool._lookout._look

    def observed(loans: Any, limit: float) -> None:
        looks.append(shop.clock.now)
        look(loans, limit)
        if not loans:
            shop.begin()  # as another thread does, before run() has ended

    shop.pool._lookout._look = observed  # type: ignore[method-assign]
    shop.pool.checkin(shop.pool.checkout())
    shop.clock.advance(20)
    assert len(looks) == len(set(looks)) <= 21
    assert len(shop.begun) == 1


def test_a_loan_that_ends_just_after_the_last_look_has_its_end_told(shop: Shop) -> None:
    lease = shop.begin()
    shop.clock.advance(7.3)
    look = shop.pool._lookout._look

    def observed(loans: Any, limit: float) -> None:
        look(loans, limit)
        if not lease.ended:
            shop.end(lease)

    shop.pool._lookout._look = observed  # type: ignore[method-assign]
    shop.clock.advance(2 * LATE)
    assert len(shop.ended) == 1


@pytest.mark.parametrize("said", [False, True], ids=["before", "after"])
def test_an_exception_from_outside_in_a_checkout_does_not_end_the_looking(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    call_at = shop.runtime.call_at

    def interrupted(when: float, task: Any) -> None:
        if said:
            call_at(when, task)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shop.runtime, "call_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shop.pool.checkout()
    looks: list[float] = []
    look = shop.pool._lookout._look

    def observed(loans: Any, limit: float) -> None:
        looks.append(shop.clock.now)
        look(loans, limit)

    shop.pool._lookout._look = observed  # type: ignore[method-assign]
    shop.begin()
    shop.clock.advance(20)
    assert 19 <= len(looks) == len(set(looks)) <= 21
    assert len(shop.begun) == 1


def test_without_threads_nobody_looks(make_shop: MakeShop) -> None:
    """A limit: the option's text says so."""
    shop = make_shop(num_workers=0)
    lease = shop.begin()
    shop.clock.advance(60)
    shop.end(lease)
    assert not shop.begun
    assert not shop.heard


def test_a_closed_pool_is_looked_at_until_all_is_back(shop: Shop) -> None:
    lease, lost = shop.begin(), shop.begin()
    lost.entry.bound, lost.entry.holder = True, Borrower()
    shop.pool.close()
    shop.clock.advance(600)
    assert len(shop.begun) == 1
    lost.entry.holder.alive = False
    shop.clock.advance(LATE)
    assert lost.ended
    assert lost.connection.closed
    assert shop.is_looking
    shop.end(lease)
    shop.clock.advance(2 * LATE)
    assert not shop.is_looking
    assert shop.pool.snapshot().size == 0


def test_a_closed_pool_of_which_nothing_is_lent_is_looked_at_no_more(shop: Shop) -> None:
    shop.end(shop.begin())
    shop.pool.close()
    shop.clock.advance(LATE)
    assert not shop.is_looking


# ---- changed while it runs


def test_a_threshold_that_is_set_while_running_holds_at_once(make_shop: MakeShop) -> None:
    shop = make_shop(idle_in_transaction_threshold=0)
    shop.begin()
    shop.clock.advance(100)
    shop.pool.configure(idle_in_transaction_threshold=3)
    shop.clock.advance(LATE)
    assert len(shop.begun) == 1


def test_a_threshold_that_is_lowered_or_raised_while_running_holds_at_once(
    make_shop: MakeShop,
) -> None:
    shop = make_shop(idle_in_transaction_threshold=100)
    lease = shop.begin()
    shop.clock.advance(20)
    shop.pool.configure(idle_in_transaction_threshold=10)
    shop.clock.advance(LATE)
    assert len(shop.begun) == 1
    shop.execute(lease)
    shop.pool.configure(idle_in_transaction_threshold=50)
    shop.clock.advance(45)
    assert len(shop.begun) == 1
    shop.clock.advance(10)
    assert len(shop.begun) == 2


def test_a_threshold_that_is_taken_away_leaves_no_end_untold(shop: Shop) -> None:
    lease = shop.begin()
    shop.clock.advance(20)
    shop.pool.configure(idle_in_transaction_threshold=0)
    shop.clock.advance(20)
    shop.end(lease)
    shop.clock.advance(2 * LATE)
    assert shop.ended == ["40.0"]
    shop.begin()
    shop.clock.advance(600)
    assert len(shop.begun) == 1


# ---- what must not matter


def test_a_listener_that_raises_ends_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.fails = True
    shop.begin("shop/views.py:1 in one")
    shop.begin("shop/views.py:2 in two")
    shop.clock.advance(THRESHOLD + 2 * LATE)
    assert sorted(f.transaction_at for f in shop.heard) == [
        "shop/views.py:1 in one", "shop/views.py:2 in two",
    ]  # fmt: skip
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 2, "each once"
    assert shop.is_looking


def test_a_driver_that_cannot_tell_at_this_moment_ends_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.begin()
    status, calls = shop.driver.status, [RuntimeError("closed just now")]

    def sometimes(connection: Any) -> TransactionStatus:
        if calls:
            raise calls.pop()
        return status(connection)

    monkeypatch.setattr(shop.driver, "status", sometimes)
    shop.clock.advance(THRESHOLD + LATE)
    assert len(shop.begun) == 1


def test_a_child_of_fork_tells_nothing_of_its_parents_loans_and_looks_after_its_own(
    shop: Shop,
) -> None:
    shop.begin()
    shop.clock.advance(THRESHOLD + LATE)
    assert len(shop.begun) == 1
    shop.pool._core.disown()
    shop.clock.advance(60)
    assert not shop.is_looking
    assert shop.ended == [], "it may go on in the parent"
    lease = shop.begin("shop/tasks.py:5 in child")
    shop.clock.advance(THRESHOLD + LATE)
    assert [facts.transaction_at for facts in shop.heard[1:]] == ["shop/tasks.py:5 in child"]
    shop.end(lease)
    shop.clock.advance(LATE)
    assert len(shop.ended) == 1


# ---- what an earlier borrower left is nobody's


def test_a_transaction_that_was_left_open_is_not_the_next_borrowers(shop: Shop) -> None:
    lease = shop.begin()
    shop.clock.advance(1)
    shop.pool.checkin(lease)
    shop.clock.advance(1)
    shop.pool.checkout()
    [facts] = shop.pool.snapshot().connections
    assert (facts.transaction_at, facts.transaction_s, facts.statement_s) == ("", None, None)
    assert "transaction" not in facts.stacks
