"""A signal's handler may look at a pool, whatever its thread was about to do with it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from django_psycopg_pooled.pool import core as core_module
from django_psycopg_pooled.pool import views
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.pool import Pool
from tests.unit.scripted_pool import ScriptedPool, audit

HUNG_S = 5

LOOKS: dict[str, Callable[[Pool], object]] = {
    "get_stats()": Pool.get_stats,
    "pop_stats()": Pool.pop_stats,
    "snapshot()": Pool.snapshot,
    "as_table()": Pool.as_table,
    "one connection": lambda pool: views.connection_facts(
        pool._core, next(iter(pool._core.ledger.entries))
    ),
    "an error's look": lambda pool: views.recent(pool._core),
}


class HungError(Exception):
    """The handler of the test waits for what goes on only after it."""


@contextmanager
def interrupted_by(look: Callable[[], object]) -> Iterator[list[object]]:
    """Within the block SIGUSR1 has *look* called, in the midst of what this thread does."""

    def give_up(*_: object) -> None:
        raise HungError

    seen: list[object] = []
    before = (
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(look())),
        signal.signal(signal.SIGALRM, give_up),
    )
    signal.alarm(HUNG_S)
    try:
        yield seen
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGALRM, before[1])


@pytest.mark.parametrize("look", LOOKS)
def test_a_handler_that_looks_in_the_midst_of_a_return_sees_the_pool(
    look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_module, "GLANCE_S", 0.05)
    scripted = ScriptedPool()
    pool = scripted.pool
    lease = pool.checkout()

    class Shelf(list[Entry]):
        """The place where a return puts its connection, under the lock."""

        def append(self, entry: Entry) -> None:
            assert pool._core.lock.locked()
            os.kill(os.getpid(), signal.SIGUSR1)
            super().append(entry)

    pool._core.ledger.idle = Shelf()
    with interrupted_by(lambda: LOOKS[look](pool)) as seen:
        pool.checkin(lease)
    assert len(seen) == 1
    assert seen[0]
    pool._core.ledger.idle = list(pool._core.ledger.idle)
    assert not pool._core.lock.locked()
    audit(pool)


def test_who_looks_waits_for_a_moment_so_that_what_is_seen_adds_up() -> None:
    scripted = ScriptedPool()
    core = scripted.pool._core
    scripted.warm(1)
    with core.lock:
        core.ledger.paused = True
        timer = threading.Timer(0.05, core.lock.release)
        timer.start()
        assert core.glance() is core.lock
        timer.join()
        core.lock.acquire()  # for the end of the block


def test_connections_that_come_and_go_during_a_look_are_looked_at_again() -> None:
    class Changing(set[Entry]):
        changes = 2

        def __iter__(self) -> Iterator[Entry]:
            if self.changes:
                self.changes -= 1
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    entries = Changing([Entry(1, 0.0)])
    assert [entry.number for entry in views._copied(entries)] == [1]
    assert not entries.changes
