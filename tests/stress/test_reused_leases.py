"""Loans that use an earlier loan's Lease, under everything that users do to a wrapper.

More threads than connections; the seed is in the tests' names.
"""

import contextlib
import gc
import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DatabaseError, Error, connections, transaction

from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import DATABASE, Call, borrow, eventually, in_thread, pool_of, value
from tests.server.support import wrapper as wrapper_of
from tests.stress.seeds import seeds
from tests.stress.throwing import throw_into, wake_who_starts_threads
from tests.unit.scripted_pool import audit

THREADS, SLOTS, SECONDS = 8, 3, 5.0
PID = "SELECT pg_backend_pid()"


@pytest.fixture(autouse=True)
def _what_is_thrown_into_a_finalizer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does once it has printed it; pytest would make it an error."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


@pytest.fixture(autouse=True)
def _nothing_is_logged() -> Iterator[None]:
    """logging takes its locks where an exception from outside can come before they are given up."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_loan_by_another_threads_lease_is_not_taken_from_the_thread_that_has_it(
    databases: Databases,
) -> None:
    """A thread connects a wrapper that it shares, and ends; the owner closes it, and goes on."""
    mine = databases.add({"max_size": 1, "timeout": 1})
    mine.inc_thread_sharing()
    shared: list[int] = []
    thread = threading.Thread(target=lambda: shared.append(borrow(mine)))
    thread.start()
    thread.join(10)
    mine.close()
    mine.dec_thread_sharing()
    first = borrow(mine)
    assert shared == [first]

    def ask() -> int:
        return borrow(wrapper_of(mine.alias))

    with pytest.raises(DatabaseError, match="P101"):
        in_thread(ask)
    assert value(mine, PID) == first
    assert pool_of(mine).get_stats().get("reclaimed", 0) == 0


def test_close_gives_back_what_was_taken_away_by_setting_connection_to_none(
    databases: Databases,
) -> None:
    """Else it is nobody's until this thread connects again, which it may never do."""
    mine = databases.add({"max_size": 1, "timeout": 1})
    first = borrow(mine)
    mine.connection = None
    mine.close()
    assert in_thread(lambda: borrow(wrapper_of(mine.alias))) == first


Acts = list[Callable[["User", PooledWrapper], None]]


class User(threading.Thread):
    """Does with its wrapper what users do, at random, until *ends_at*."""

    def __init__(self, alias: str, acts: Acts, number: int, seed: int, ends_at: float) -> None:
        super().__init__(daemon=True, name=f"user {number}")
        self.alias = alias
        self.acts = acts
        self.random = random.Random(f"{seed} {number}")
        self.ends_at = ends_at
        self.number = number
        self.count = 0
        self.hits = 0
        self.done: set[str] = set()
        self.failures: list[str] = []
        self.is_whole = True

    def run(self) -> None:
        while time.monotonic() < self.ends_at:
            try:  # here too: the inner one does not cover the jump back in its loop
                self.live()
            except KeyboardInterrupt:
                self.hits += 1
        self.start_anew()

    def live(self) -> None:
        while time.monotonic() < self.ends_at:
            try:
                self.step()
            except KeyboardInterrupt:
                self.hits += 1
            except BaseException as error:
                if _follows_an_interrupt(error):
                    self.hits += 1
                else:
                    self.failures.append("".join(traceback.format_exception(error)))

    def step(self) -> None:
        self.count += 1
        if not self.is_whole:
            self.start_anew()
        self.is_whole = False
        act = self.random.choice(self.acts)
        act(self, wrapper_of(self.alias))
        self.done.add(act.__name__)
        self.is_whole = True

    def start_anew(self) -> None:
        """Without what Django believes of the connection: it may have been told half of it."""
        with contextlib.suppress(Error):
            connections[self.alias].close()
        del connections[self.alias]

    def ask(self, mine: PooledWrapper, sql: str = "SELECT %s") -> None:
        """What comes back must be this thread's own."""
        self.count += 1
        tag = f"{self.number} {self.count}"
        assert value(mine, sql, tag) == tag

    # ---- what users do

    def query(self, mine: PooledWrapper) -> None:
        self.ask(mine)
        mine.close()

    def query_and_keep(self, mine: PooledWrapper) -> None:
        self.ask(mine)
        self.ask(mine)
        mine.close()

    def transact(self, mine: PooledWrapper) -> None:
        with transaction.atomic(using=self.alias):
            first = value(mine, PID)
            self.ask(mine)
            time.sleep(self.random.random() * 0.002)
            assert value(mine, PID) == first
        mine.close()

    def fail(self, mine: PooledWrapper) -> None:
        with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=self.alias):
            self.ask(mine)
            raise ZeroDivisionError
        mine.close()

    def close_twice(self, mine: PooledWrapper) -> None:
        self.ask(mine)
        mine.close()
        mine.close()
        self.ask(mine)
        mine.close()

    def take_away(self, mine: PooledWrapper) -> None:
        """`connection` is gone without close(); the next connect gives it back."""
        self.ask(mine)
        mine.connection = None
        self.ask(mine)
        mine.close()

    def refuse_others(self, mine: PooledWrapper) -> None:
        """close() in another thread is refused, and ends nothing."""
        with transaction.atomic(using=self.alias):
            first = value(mine, PID)
            other = Call(mine.close)
            other.join(10)
            assert isinstance(other.error, DatabaseError | KeyboardInterrupt), other.error
            assert value(mine, PID) == first
        mine.close()

    def share(self, mine: PooledWrapper) -> None:
        """Another thread connects, and ends; this one closes, and goes on by itself."""
        mine.inc_thread_sharing()
        try:
            other = Call(lambda: self.ask(mine))
            other.join(10)
            assert other.error is None, other.error
            if self.random.random() < 0.5:
                mine.close()
                self.ask(mine)
        finally:
            mine.dec_thread_sharing()
        mine.close()
        self.transact(mine)

    def leave_a_cycle(self, mine: PooledWrapper) -> None:
        """Of a cursor that is open, for the collector to find."""
        cycle: list[Any] = [mine.cursor()]
        cycle.append(cycle)
        self.ask(mine)
        mine.close()

    def collect(self, mine: PooledWrapper) -> None:
        gc.collect(self.random.choice([0, 0, 1, 2]))
        self.ask(mine)
        mine.close()

    def switch(self, mine: PooledWrapper) -> None:
        pool_of(mine).configure(release=self.random.choice(["request", "transaction"]))
        self.ask(mine)
        mine.close()


ACTS: Acts = [
    User.query,
    User.query_and_keep,
    User.transact,
    User.transact,
    User.fail,
    User.close_twice,
    User.take_away,
    User.leave_a_cycle,
    User.collect,
    User.switch,
]
# Where no exception comes from outside: that can leave a thread's start() waiting for ever.
WITH_THREADS: Acts = [User.refuse_others, User.share]


def _follows_an_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class Count(threading.Thread):
    """Asks the server again and again how many sessions there are."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.most = 0
        self.ending = False

    def run(self) -> None:
        while not self.ending:
            self.most = max(self.most, self.now())

    def now(self) -> int:
        return self.server.backends(f"datname = '{DATABASE}'")


@pytest.mark.parametrize("interrupts", [False, True], ids=["undisturbed", "interrupted"])
@pytest.mark.parametrize("seed", seeds())
def test_each_thread_has_its_own_session_and_no_slot_is_lost_whatever_users_do(
    databases: Databases, seed: int, interrupts: bool
) -> None:
    options = {"max_size": SLOTS, "timeout": 20, "idle_in_transaction_threshold": 0}
    mine = databases.add(options)
    pool = pool_of(mine)
    chance = random.Random(seed)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    ends_at = time.monotonic() + SECONDS
    acts = ACTS if interrupts else ACTS + WITH_THREADS
    users = [User(mine.alias, acts, number, seed, ends_at) for number in range(THREADS)]
    count = Count(databases.server)
    try:
        for thread in (count, *users):
            thread.start()
        while time.monotonic() < ends_at:
            time.sleep(0.002 + chance.random() * 0.01)
            if interrupts:
                throw_into(chance.choice(users))
    finally:
        sys.setswitchinterval(before)
        for user in users:
            user.join(1)
        wake_who_starts_threads()
        for user in users:
            user.join(40)
        count.ending = True
        count.join(10)
    assert not any(user.is_alive() for user in users), pool.as_table()
    assert not (failures := [each for user in users for each in user.failures]), failures[0]
    done = set().union(*(user.done for user in users))
    assert done == {act.__name__ for act in acts}
    assert not interrupts or sum(user.hits for user in users) > 20
    assert count.most > 0
    # An interrupted connection is closed, and replaced before the server has ended its session.
    assert interrupts or count.most <= SLOTS
    _assert_no_slot_is_lost(mine)
    eventually(lambda: count.now() == pool.snapshot().size)


def _assert_no_slot_is_lost(mine: PooledWrapper) -> None:
    gc.collect()
    pool = pool_of(mine)
    for _ in range(2):
        leases = [pool.checkout(timeout=10) for _ in range(SLOTS)]
        assert len({id(lease.connection) for lease in leases}) == SLOTS
        while leases:
            pool.checkin(leases.pop())
    eventually(lambda: not pool.snapshot().count("lent"))
    audit(pool)
