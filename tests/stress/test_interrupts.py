"""Exceptions thrown into threads that borrow, give back and wait, at random moments.

As a worker's time limit throws them, or a signal. The seed is printed with a failure;
DPP_STRESS_SEED=N makes the same pauses again (the threads interleave as they like).
"""

import random
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import pytest

from django_psycopg_pooled.errors import PoolTimeout
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.pool import Pool
from tests.server.support import eventually
from tests.stress.seeds import seeds
from tests.stress.test_interrupt_at_every_opcode import ForgetfulDriver
from tests.stress.throwing import throw_into, wake_who_starts_threads
from tests.unit.scripted_pool import audit

THREADS = 4
SLOTS = 2  # so that two threads wait, mostly
INTERRUPTS = 10_000


@pytest.fixture(autouse=True)
def _threads_change_often() -> Iterator[None]:
    """So that an exception finds them anywhere, and whoever throws it gets a turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def _what_is_thrown_into_a_finalizer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does once it has printed it; pytest would keep it, and so what was finalized."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


class User(threading.Thread):
    """Borrows and gives back until it is told to end, whatever is thrown into it.

    bound   only this thread can use what it borrows, as with Django's wrapper
    """

    def __init__(self, pool: Pool, *, bound: bool) -> None:
        super().__init__(daemon=True)
        self.pool = pool
        self.bound = bound
        self.ending = False
        self.begun = 0
        self.hits = 0
        self.failures: list[BaseException] = []
        self.start()

    def run(self) -> None:
        while not self.ending:
            try:  # here too: the inner one does not cover the jump back in its loop
                self.live()
            except KeyboardInterrupt:
                self.hits += 1

    def live(self) -> None:
        while not self.ending:
            try:
                self.borrow()
            except KeyboardInterrupt:
                self.hits += 1
            except BaseException as error:
                self.failures.append(error)

    def borrow(self) -> None:
        self.begun += 1
        lease = self.pool.checkout(timeout=30, bound=self.bound)
        self.pool.checkin(lease)

    def interrupt(self) -> None:
        """Throw, and return when it has come, and this thread borrows again."""
        begun = self.begun
        throw_into(self)
        thrown_at = time.monotonic()
        while self.begun < begun + 2:
            waited = time.monotonic() - thrown_at
            assert self.is_alive(), "thrown out of its loop"
            assert waited < 20, f"waits for ever\n{self.where()}"
            if waited > 1:
                wake_who_starts_threads()
            time.sleep(0)

    def where(self) -> str:
        """What all threads do, this one first, and what the pool looks like."""
        frames = sys._current_frames()
        order = sorted(threading.enumerate(), key=lambda thread: thread is not self)
        stacks = [
            f"{thread.name}\n{''.join(traceback.format_stack(frames[thread.ident or 0]))}"
            for thread in order
            if thread.ident in frames
        ]
        return "\n".join([self.pool.as_table(), *stacks])


@pytest.mark.parametrize("workers", [3, 0])
@pytest.mark.parametrize("seed", seeds())
def test_ten_thousand_exceptions_at_random_moments_lose_no_slot(seed: int, workers: int) -> None:
    mine = random.Random(seed)
    driver = ForgetfulDriver()
    options = PoolOptions.parse({"min_size": 0, "max_size": SLOTS, "num_workers": workers})
    pool = Pool("interrupted", driver.connect, driver, options)
    users = [User(pool, bound=bool(number % 2)) for number in range(THREADS)]
    try:
        eventually(lambda: all(user.begun for user in users))
        for _ in range(INTERRUPTS // 2):
            time.sleep(mine.random() * 0.0002)
            mine.choice(users).interrupt()
    finally:
        for user in users:
            user.ending = True
        for user in users:
            user.join(30)
    assert not any(user.is_alive() for user in users), pool.as_table()
    assert [error for user in users for error in user.failures] == []
    # Some are thrown into a finalizer, where Python forgets them.
    assert sum(user.hits for user in users) > 0.9 * INTERRUPTS / 2
    _assert_whole(pool, driver)


def _assert_whole(pool: Pool, driver: ForgetfulDriver) -> None:
    """Every slot can be had, no more than these, and then nothing is lent."""
    for _ in range(2):
        leases = [pool.checkout(timeout=5) for _ in range(SLOTS)]
        assert len({id(lease.connection) for lease in leases}) == SLOTS
        with pytest.raises(PoolTimeout):
            pool.checkout(timeout=0.1)
        while leases:
            pool.checkin(leases.pop())
    eventually(lambda: not pool.snapshot().count("opening"))
    audit(pool)
    facts = pool.snapshot()
    assert facts.requests_waiting == 0
    assert facts.count("idle") == facts.size == SLOTS
    assert sum(not connection.closed for connection in driver.connections) == SLOTS
    pool.close()
