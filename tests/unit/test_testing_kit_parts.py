"""The kit for users' tests, without a server: what counts as idle, and faults side by side."""

import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.testing import assertions, faults
from django_psycopg_pooled.testing.assertions import PooledAssertionsMixin
from django_psycopg_pooled.testing.faults import Delay, Failure, Fault, Faults
from django_psycopg_pooled.testing.idling import IdleWatch
from tests.unit.scripted_pool import ScriptedPool

LIMIT_S = 3.0


class Block:
    """One of Django's atomic blocks, as far as the watch looks at it."""

    durable = False

    def __init__(self, *, of_the_test_case: bool = False) -> None:
        self._from_testcase = of_the_test_case


class Watched:
    """A pool that an IdleWatch looks at when the test says so."""

    def __init__(self) -> None:
        self.scripted = ScriptedPool()
        self.pool = self.scripted.pool
        self.watch = IdleWatch(lambda: [self.pool], LIMIT_S)

    def begin(self, *blocks: Block) -> Lease:
        """Lend a connection whose transaction is open in these blocks, after a statement."""
        lease = self.pool.checkout()
        lease.connection.status = TransactionStatus.INTRANS
        lease.entry.session.blocks = list(blocks)
        self.execute(lease)
        return lease

    def execute(self, lease: Lease, seconds: float = 0.0) -> None:
        session = lease.entry.session
        session.last, session.began = "here", self.scripted.clock.now
        self.scripted.clock.advance(seconds)
        session.ended = self.scripted.clock.now

    def look(self, after: float) -> list[float]:
        """Look after so many seconds more; for how long what was found has been idle."""
        self.scripted.clock.advance(after)
        self.watch.look()
        return [idle.idle_s for idle in self.watch.found]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_idle_is_what_reaches_the_limit_and_its_length_is_the_last_seen(watched: Watched) -> None:
    watched.begin(Block())
    assert watched.look(LIMIT_S - 0.1) == []
    assert watched.look(0.1) == [LIMIT_S]
    assert watched.look(4.0) == [LIMIT_S + 4.0]


def test_each_statement_begins_a_new_count(watched: Watched) -> None:
    lease = watched.begin(Block())
    for _ in range(3):
        assert watched.look(LIMIT_S - 0.1) == []
        watched.execute(lease)
    watched.look(LIMIT_S)
    watched.execute(lease)
    assert watched.look(LIMIT_S + 1) == [LIMIT_S + 1, LIMIT_S]


def test_a_statement_that_runs_is_not_idle(watched: Watched) -> None:
    lease = watched.begin(Block())
    watched.scripted.clock.advance(1)
    lease.entry.session.began = watched.scripted.clock.now
    assert watched.look(10 * LIMIT_S) == []
    assert watched.watch.left_open() == []
    lease.entry.session.ended = watched.scripted.clock.now
    assert watched.look(LIMIT_S) == [LIMIT_S]


def test_a_connection_without_a_transaction_is_not_idle_in_one(watched: Watched) -> None:
    lease = watched.begin(Block())
    lease.connection.status = TransactionStatus.IDLE
    assert watched.look(10 * LIMIT_S) == []
    lease.connection.status = TransactionStatus.INERROR  # and in a failed one it is
    assert watched.look(LIMIT_S) == [11 * LIMIT_S]


def test_the_test_cases_blocks_do_not_count_and_those_in_them_do_from_their_begin(
    watched: Watched,
) -> None:
    lease = watched.begin(Block(of_the_test_case=True), Block(of_the_test_case=True))
    assert watched.look(10 * LIMIT_S) == []
    lease.entry.session.blocks.append(Block())
    assert watched.look(0.0) == []  # not the seconds before it
    assert watched.look(LIMIT_S) == [LIMIT_S]
    lease.entry.session.blocks.pop()
    assert watched.watch.left_open() == []


def test_what_was_open_at_the_start_does_not_count_but_the_next_transaction_does(
    watched: Watched,
) -> None:
    lease = watched.begin(Block())
    session = lease.entry.session
    session.transaction_at = watched.scripted.clock.now
    watched.watch.note()
    assert watched.look(10 * LIMIT_S) == []
    assert watched.watch.left_open() == []
    session.transaction_at = watched.scripted.clock.now
    watched.execute(lease)
    assert watched.look(LIMIT_S) == [LIMIT_S]
    assert len(watched.watch.left_open()) == 1


def test_a_loan_that_follows_is_not_taken_for_the_one_before(watched: Watched) -> None:
    lease = watched.begin(Block())
    watched.watch.note()
    watched.pool.checkin(lease)
    again = watched.begin(Block())
    assert again.entry is lease.entry
    assert watched.look(LIMIT_S) == [LIMIT_S]


def test_what_another_thread_has_open_is_not_left_by_this_one(watched: Watched) -> None:
    thread = threading.Thread(target=watched.begin, args=(Block(),))
    thread.start()
    thread.join()
    assert watched.watch.left_open() == []
    assert watched.look(LIMIT_S) == [LIMIT_S]


# ---- faults


def refusals(connector: Callable[[], Any], attempts: int) -> int:
    """How many of so many connects, each in a thread of its own, are refused."""
    errors: list[Exception] = []

    def connect() -> None:
        try:
            connector()
        except ZeroDivisionError as error:
            errors.append(error)

    threads = [threading.Thread(target=connect) for _ in range(attempts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(errors)


def test_just_so_many_connects_fail_whatever_thread_they_come_from() -> None:
    pool: Any = ScriptedPool().pool
    failure = Failure(ZeroDivisionError(), 3)
    Faults.add(pool, failure)
    assert refusals(pool._core.connector, 20) == 3
    assert failure.connects == 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_faults_may_end_in_any_order(order: tuple[int, ...]) -> None:
    scripted = ScriptedPool()
    pool: Any = scripted.pool
    connector = pool._core.connector
    each = [Fault(), Fault(), Fault()]
    for fault in each:
        Faults.add(pool, fault)
    pool._core.connector()
    for i in order:
        Faults.remove(pool, each[i])
        pool._core.connector()
    assert pool._core.connector == connector
    assert [each[i].connects for i in order] == [1, 2, 3]
    assert len(scripted.driver.opened) == 4


def test_a_delay_lets_go_at_the_end_of_its_block() -> None:
    pool: Any = ScriptedPool().pool
    delay = Delay(1000.0)
    Faults.add(pool, delay)
    thread = threading.Thread(target=pool._core.connector)
    thread.start()
    Faults.remove(pool, delay)
    delay.end()
    thread.join(10)
    assert not thread.is_alive()


# ---- what users see


@pytest.mark.parametrize("module", [assertions, faults])
def test_every_public_function_says_what_it_does(module: Any) -> None:
    for name, member in inspect.getmembers(module, inspect.isfunction):
        if member.__module__ == module.__name__ and not name.startswith("_"):
            assert len(inspect.getdoc(member) or "") > 100, name


@pytest.mark.parametrize(
    ("method", "function"),
    [
        ("assertNoIdleInTransaction", assertions.assert_no_idle_in_transaction),
        ("assertNoLeakedConnections", assertions.assert_no_leaked_connections),
        ("assertPrepared", assertions.assert_prepared),
    ],
)
def test_the_mixins_methods_take_what_the_functions_take(method: str, function: Any) -> None:
    _, *theirs = inspect.signature(getattr(PooledAssertionsMixin, method)).parameters.values()
    assert theirs == list(inspect.signature(function).parameters.values())


def test_the_fakes_need_no_django() -> None:
    code = (
        "import sys, django_psycopg_pooled.testing;"
        "assert not {'django', 'psycopg', 'psycopg2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
