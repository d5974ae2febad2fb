"""Random actions of real threads on one pool: nothing is lost, whatever happens.

The seed is printed with a failure; DPP_STRESS_SEED=N runs the same script of actions again (the
threads still interleave as they like).
"""

import random
import threading
import time
from collections.abc import Callable

import pytest

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.errors import PoolClosed, PoolTimeout, TooManyRequests
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.testing import ScriptedConnection, ScriptedDriver
from django_psycopg_pooled.testing.scripted import DriverError
from tests.stress.seeds import seeds
from tests.unit.scripted_pool import audit

THREADS = 12
STEPS = 250


class Chaos:
    """A scripted driver whose server comes and goes, and users who do what users do."""

    def __init__(self, seed: int, **options: object) -> None:
        self.random = random.Random(seed)
        self.driver = ScriptedDriver()
        self.down = False
        self.borrowed: set[int] = set()
        self.most_open = 0
        self.lock = threading.Lock()
        options = {"min_size": 1, "max_size": 5, "timeout": 2, "max_waiting": 9, **options}
        self.pool = Pool("chaos", self.connect, self.driver, PoolOptions.parse(options))
        self.failures: list[BaseException] = []

    def connect(self) -> ScriptedConnection:
        time.sleep(self.random.random() * 0.002)
        if self.down:
            raise DriverError("connection refused")
        with self.lock:
            connection = self.driver.connect()
            alive = sum(not c.closed for c in self.driver.opened)
            self.most_open = max(self.most_open, alive)
            return connection

    def run(self) -> None:
        threads = [threading.Thread(target=self.live, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a thread hangs"
        if self.failures:
            raise self.failures[0]

    def live(self, number: int) -> None:
        mine = random.Random(self.random.random() + number)
        try:
            for _ in range(STEPS):
                self.step(mine)
        except BaseException as error:
            self.failures.append(error)

    def step(self, mine: random.Random) -> None:
        act = mine.choices(
            [self.use, self.kill_one, self.kill_all, self.outage, self.operate],
            weights=[90, 4, 1, 1, 4],
        )[0]
        act(mine)

    def use(self, mine: random.Random) -> None:
        try:
            lease = self.pool.checkout(timeout=mine.choice([0.0, 0.05, 2.0]))
        except (PoolTimeout, TooManyRequests, PoolClosed, DriverError):
            return
        key = id(lease.connection)
        with self.lock:
            assert key not in self.borrowed, "one connection, two borrowers"
            self.borrowed.add(key)
        assert not lease.connection.closed, "a closed connection was lent"
        time.sleep(mine.random() * 0.001)
        lease.connection.status = mine.choice(
            [TransactionStatus.IDLE] * 8 + [TransactionStatus.INTRANS, TransactionStatus.ACTIVE]
        )
        with self.lock:
            self.borrowed.discard(key)
        for _ in range(mine.choice([1, 1, 1, 2])):  # twice: a stale holder
            self.pool.checkin(lease)

    def kill_one(self, mine: random.Random) -> None:
        opened = self.driver.opened
        if opened:
            mine.choice(opened[-5:]).dead = True

    def kill_all(self, mine: random.Random) -> None:
        for connection in list(self.driver.opened):
            connection.dead = True

    def outage(self, mine: random.Random) -> None:
        self.down = True
        self.kill_all(mine)
        time.sleep(mine.random() * 0.05)
        self.down = False

    def operate(self, mine: random.Random) -> None:
        verbs: list[Callable[[], object]] = [
            self.pool.drain,
            self.pool.check,
            self.pool.get_stats,
            self.pool.as_table,
            lambda: self.pool.configure(max_size=mine.choice([3, 5, 8])),
            self.pause_briefly,
        ]
        mine.choice(verbs)()

    def pause_briefly(self) -> None:
        self.pool.pause(0.001)
        self.pool.resume()


@pytest.mark.parametrize("workers", [3, 0])
@pytest.mark.parametrize("seed", seeds(2))
def test_no_slot_is_lost_and_no_connection_has_two_borrowers(seed: int, workers: int) -> None:
    chaos = Chaos(seed, num_workers=workers)
    chaos.run()
    pool = chaos.pool
    pool.resume()
    pool.configure(max_size=5)
    chaos.down = False
    deadline = time.monotonic() + 10
    while pool.snapshot().count("opening"):
        assert time.monotonic() < deadline, "connects that never end"
        time.sleep(0.01)
    audit(pool)
    facts = pool.snapshot()
    assert facts.count("lent") == 0
    assert facts.count("idle") == facts.size <= 5
    assert facts.requests_waiting == 0
    # Every slot can be had again, and every connection that is not in the pool is closed.
    leases = [pool.checkout(timeout=5) for _ in range(5)]
    assert len({id(lease.connection) for lease in leases}) == 5
    pool.close()
    for lease in leases:
        pool.checkin(lease)
    assert all(connection.closed for connection in chaos.driver.opened)
    assert pool.snapshot().size == 0
    assert chaos.most_open <= 8
    assert len(chaos.driver.opened) > 20, "the script did not do much"
