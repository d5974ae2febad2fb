"""An exception from outside wherever one can come in a statement that runs prepared, or is to be.

The next statements on that connection find right rows, no error about prepared statements reaches
anybody, and what is counted stays countable.
"""

import contextlib
import gc
import importlib.util
import itertools
import logging
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from django.db import Error, connections, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.statements.journal import Journal
from tests.server.databases import Databases
from tests.server.support import eventually, value, wrapper
from tests.server.things import prepared_pool, with_things
from tests.stress import test_interrupt_at_every_opcode as every_opcode
from tests.stress.seeds import seeds
from tests.stress.test_interrupts import User
from tests.unit.scripted_pool import audit

if sys.version_info >= (3, 12):  # the Interrupter needs it there
    _monitored = every_opcode._monitored

PREPARED_MAX = 2
# Places of each story: all in ALWAYS; at random in preparing and its drivers, and elsewhere.
ALWAYS = ("/preparing/keeper.py",)
NEARBY = ("/preparing/", "/execution/", "_binding.py", "/psycopg/")
NEAR, FAR = 8, 2
INTERRUPTS, USERS, SLOTS = 200, 3, 2
STORIES_TOLD = 10
if sys.version_info >= (3, 12):
    # Each instruction is watched all the while, which takes several times as long.
    INTERRUPTS, STORIES_TOLD = 60, 4
NAMES = "SELECT name FROM pg_prepared_statements WHERE starts_with(name, '_dpp_')"
ROWS = {1: "one", 2: "two", 3: "three"}


@pytest.fixture(autouse=True)
def _what_is_thrown_into_a_finalizer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does once it has printed it; pytest would make it an error."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


@pytest.fixture(autouse=True)
def _drivers_are_interrupted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of psycopg 3 that is written in Python; psycopg2 has none that matters."""
    driver = importlib.util.find_spec("psycopg")
    assert driver is not None
    assert driver.origin is not None
    traced = (every_opcode.TRACED, str(Path(driver.origin).parent))
    monkeypatch.setattr(every_opcode, "TRACED", traced)
    if sys.version_info >= (3, 12):
        sys.monitoring.restart_events()  # files that were of no interest are


@pytest.fixture(autouse=True)
def _each_execution_is_to_be_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_psycopg_pooled.execution.watched.FOLD_AT", 1)


@pytest.fixture(autouse=True)
def _nothing_is_logged() -> Iterator[None]:
    """logging takes its locks where an exception from outside can come before they are given up."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


_numbers = itertools.count(1)


class Places(every_opcode.Interrupter):
    """Does not interrupt; notes in which file it could."""

    def __init__(self) -> None:
        super().__init__(0)
        self.files: list[str] = []

    def _count(self, frame: FrameType) -> None:
        self.files.append(frame.f_code.co_filename)

    def some(self, mine: random.Random) -> list[int]:
        """The numbers of those in ALWAYS, NEAR and FAR, the latter two at random."""
        always, near = self._of(ALWAYS), self._of(NEARBY)
        far = set(range(len(self.files))) - near
        assert len(near) > NEAR, "the story is too short to say anything"
        chosen = mine.sample(sorted(near), NEAR) + mine.sample(sorted(far), FAR)
        return sorted({*always, *chosen})

    def _of(self, parts: tuple[str, ...]) -> set[int]:
        return {n for n, file in enumerate(self.files) if any(part in file for part in parts)}


class InTheJournal(every_opcode.Interrupter):
    """Knows no other places."""

    def _count(self, frame: FrameType) -> None:
        if "/statements/journal" in frame.f_code.co_filename:
            super()._count(frame)


@dataclass
class Scene:
    """One connection, and what is known of its statements; lives for one story."""

    things: PooledWrapper
    texts: list[str] = field(default_factory=list)
    rows: dict[int, str] = field(default_factory=lambda: dict(ROWS))
    param: Callable[[int], object] = lambda number: number
    # A transaction fails once in which it turns out to be gone or outdated; nobody can help it.
    stale: bool = False

    def fresh(self, form: str = "SELECT name, {} FROM things WHERE id = %s") -> str:
        """A text that nobody has executed yet."""
        self.texts.append(form.format(next(_numbers)))
        return self.texts[-1]

    def prepared(self, *, times: int = 1) -> str:
        """One that has run prepared so often."""
        sql = self.fresh()
        for _ in range(times):
            self.ask(sql, 1)
        return sql

    def ask(self, sql: str, number: int) -> None:
        """Execute it, and compare what it finds."""
        with self.things.cursor() as cursor:
            cursor.execute(sql, [self.param(number)])
            found = cursor.fetchone()
        assert str(found[0]) == self.rows[number], (sql, number, found)

    def holdings(self) -> Any:
        return self.things.connection._pool_session.prepared

    def drop(self, sql: str) -> None:
        """Take away what is prepared for *sql*, behind our backs."""
        [name] = [_name(h) for h in self.holdings().values() if h.plan.sql == sql]
        with _unwatched(self.things.connection) as cursor:
            cursor.execute(f"DEALLOCATE {name}")

    @property
    def journal(self) -> Journal:
        journal = prepared_pool(self.things)._statements.journal
        assert journal is not None
        return journal

    def calls(self) -> int:
        """How many executions the journal has counted."""
        return sum(each.calls for each in prepared_pool(self.things).queries.top(10_000))


def _name(held: Any) -> str:
    name = held.statement.name
    return name.decode() if isinstance(name, bytes) else str(name)


def _unwatched(connection: Any) -> Any:
    """A cursor that tells the pool of nothing."""
    if is_psycopg3:
        from psycopg import Cursor

        return Cursor(connection)
    from psycopg2 import extensions

    return extensions.connection.cursor(connection, cursor_factory=extensions.cursor)


# Each prepares a scene and says what is to be interrupted in it.
Story = Callable[[Scene], str]
Way = Callable[[Scene, Callable[[], None], Callable[[], None]], None]


def executed_for_the_first_time(scene: Scene) -> str:
    return scene.fresh()


def prepared_already(scene: Scene) -> str:
    return scene.prepared()


def evicted_once(scene: Scene) -> str:
    """It has proven that it can be prepared, so that it is without a savepoint; evicts another."""
    sql = scene.prepared()
    for _ in range(PREPARED_MAX):
        scene.prepared()
    return sql


def taken_away_behind_our_backs(scene: Scene) -> str:
    scene.stale = True
    sql = scene.prepared()
    scene.drop(sql)
    return sql


def in_doubt(scene: Scene) -> str:
    """Another was taken away, so this one may have been; it was not."""
    gone, sql = scene.prepared(), scene.prepared()
    scene.drop(gone)
    scene.ask(gone, 1)
    scene.texts.remove(gone)
    return sql


def to_be_prepared_anew(scene: Scene) -> str:
    sql = scene.prepared()
    prepared_pool(scene.things).forget_plans()
    return sql


def resting(scene: Scene) -> str:
    """Its next execution runs as it is, to know what that takes."""
    sql = scene.prepared()
    while not any(held.rests for held in scene.holdings().values()):
        scene.ask(sql, 1)
    return sql


def outdated(scene: Scene) -> str:
    """Its result has another type now."""
    scene.stale = True
    sql = scene.fresh("SELECT number, {} FROM changing WHERE id = %s")
    scene.rows = {1: "1", 2: "2", 3: "3"}
    with scene.things.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS changing")
        cursor.execute("CREATE TABLE changing AS SELECT id, id AS number FROM things")
        scene.ask(sql, 1)
        cursor.execute("ALTER TABLE changing ALTER number TYPE text")
    return sql


def that_cannot_be_prepared(scene: Scene) -> str:
    scene.rows = {number: f"2020-02-0{number}" for number in ROWS}
    scene.param = scene.rows.__getitem__
    return scene.fresh("SELECT date %s, {}")


def registered_with_a_plan_cache_mode(scene: Scene) -> str:
    sql = scene.fresh()
    prepared_pool(scene.things).add_prepare_target(sql, plan_cache_mode="force_generic_plan")
    scene.ask(sql, 1)
    return sql


STORIES: list[Story] = [
    executed_for_the_first_time,
    prepared_already,
    evicted_once,
    taken_away_behind_our_backs,
    in_doubt,
    to_be_prepared_anew,
    resting,
    outdated,
    that_cannot_be_prepared,
    registered_with_a_plan_cache_mode,
]


class Done(Exception):
    """Ends a transaction that is rolled back."""


def outside(scene: Scene, interrupted: Callable[[], None], check: Callable[[], None]) -> None:
    """Any transaction."""
    with contextlib.suppress(KeyboardInterrupt):
        interrupted()


def in_a_transaction(
    scene: Scene, interrupted: Callable[[], None], check: Callable[[], None]
) -> None:
    """Which the exception ends."""
    with contextlib.suppress(KeyboardInterrupt), transaction.atomic(using=scene.things.alias):
        interrupted()


def under_a_savepoint(
    scene: Scene, interrupted: Callable[[], None], check: Callable[[], None]
) -> None:
    """Which the exception undoes; the transaction goes on, if the driver can."""
    with contextlib.suppress(Done), transaction.atomic(using=scene.things.alias):
        with contextlib.suppress(KeyboardInterrupt), transaction.atomic(using=scene.things.alias):
            interrupted()
        if not scene.things.needs_rollback:
            check()
        raise Done


WAYS = [outside, in_a_transaction, under_a_savepoint]


def _failures(
    scene: Scene, story: Story, way: Way, interrupters: Iterable[every_opcode.Interrupter]
) -> Iterator[str]:
    """What was wrong after each of these exceptions, until the story is over before one comes."""
    for interrupter in interrupters:
        try:
            _interrupt(scene, story, way, interrupter)
        except BaseException as error:
            what = f"{type(error).__name__} {str(error)[:200]}"
            yield f"{story.__name__}, {interrupter.where}: {what}"
            scene.things.close()
            prepared_pool(scene.things).drain()  # so that each failure is of one interruption
            scene.journal.restart()
        if interrupter.left >= 0:
            return


def _interrupt(scene: Scene, story: Story, way: Way, interrupter: every_opcode.Interrupter) -> None:
    scene.texts.clear()
    sql = story(scene)

    def interrupted() -> None:
        with scene.things.cursor() as cursor:
            param = [scene.param(1)]
            with interrupter:
                cursor.execute(sql, param)
            assert str(cursor.fetchone()[0]) == scene.rows[1]

    def all_are_right() -> None:
        for number, text in itertools.product((2, 3), scene.texts):
            scene.ask(text, number)

    try:
        way(scene, interrupted, all_are_right)
    except Error:
        if not scene.stale:
            raise
    scene.things.close()
    if scene.stale:
        all_are_right()
    # In a transaction first: there nothing can be run once more that has failed.
    with transaction.atomic(using=scene.things.alias):
        all_are_right()
    all_are_right()
    scene.things.close()
    _assert_whole(scene, sql)


def _assert_whole(scene: Scene, sql: str) -> None:
    """Books, counts and locks are as if nothing had happened."""
    pool = prepared_pool(scene.things)
    statements = pool._statements
    plan = statements.book.look_up(sql).plan
    locks = [statements.book._lock, statements.preparer._lock, *([plan._lock] if plan else [])]
    locks.append(scene.journal._lock)

    def no_lock_is_held_for_ever() -> bool:
        return not any(lock.locked() for lock in locks)

    eventually(no_lock_is_held_for_ever, 0.5)  # a worker may hold one just now
    counted = scene.calls()
    scene.ask(sql, 1)
    assert scene.calls() == counted + 1
    held = {_name(each) for each in scene.holdings().values()}
    with _unwatched(scene.things.connection) as cursor:
        cursor.execute(NAMES)
        there = {name for (name,) in cursor.fetchall()}
        cursor.execute("SHOW plan_cache_mode")
        assert cursor.fetchone() == ("auto",)
    assert there <= held, "nobody will ever close these"
    assert len(held) <= PREPARED_MAX
    scene.things.close()
    audit(pool)


def _one_connection(databases: Databases) -> PooledWrapper:
    return with_things(databases, prepared_max=PREPARED_MAX, max_size=1, num_workers=0)


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_next_statements_are_right_wherever_an_execution_was_interrupted(
    databases: Databases, way: Way, seed: int
) -> None:
    things = _one_connection(databases)
    failures: list[str] = []
    mine = random.Random(f"{seed} {way.__name__}")
    for story in mine.sample(STORIES, STORIES_TOLD):
        scene = Scene(things)
        places = Places()
        _interrupt(scene, story, way, places)
        interrupters = map(every_opcode.Interrupter, places.some(mine))
        failures += _failures(scene, story, way, interrupters)
    for facts in prepared_pool(things).prepared():
        assert facts.hits >= 0, facts
        assert facts.connections >= 0, facts
        assert (facts.prepared_mean_s or 0) >= 0, facts
    assert not failures, "\n".join(failures)


def test_statements_are_counted_wherever_the_counting_of_one_was_interrupted(
    databases: Databases,
) -> None:
    scene = Scene(_one_connection(databases))
    interrupters = [InTheJournal(at) for at in range(100)]
    failures = list(_failures(scene, prepared_already, outside, interrupters))
    assert sum(each.left < 0 for each in interrupters) > 5, [i.where for i in interrupters]
    assert not failures, "\n".join(failures)


class Asker(User):
    """Executes the same few texts as others, whatever is thrown into it."""

    def __init__(self, pool: Pool, alias: str, seed: str) -> None:
        self.alias = alias
        self.random = random.Random(seed)
        self.is_whole = True
        super().__init__(pool, bound=True)

    def run(self) -> None:
        super().run()
        self.leave()

    def borrow(self) -> None:
        self.begun += 1
        try:
            self.execute()
        except Error as error:
            if not _follows_an_interrupt(error):
                raise
            raise KeyboardInterrupt from error  # Django or the driver was left half way

    def execute(self) -> None:
        if not self.is_whole:
            self.leave()
        self.is_whole = False
        things = wrapper(self.alias)
        with transaction.atomic(using=self.alias) if self.random.random() < 0.7 else _nothing():
            for _ in range(3):
                number = self.random.choice(list(ROWS))
                assert value(things, self.random.choice(TEXTS), number) == ROWS[number]
        things.close()
        self.is_whole = True

    def leave(self) -> None:
        """Without what Django believes of the connection: it may have been told half of it."""
        with contextlib.suppress(Error):
            connections[self.alias].close()
        del connections[self.alias]


def _follows_an_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


_nothing = contextlib.nullcontext
# More than a connection may hold, so that each is prepared, closed and prepared again.
TEXTS = [f"SELECT name, {n} FROM things WHERE id = %s" for n in range(5)]


@pytest.mark.parametrize("seed", seeds())
def test_exceptions_at_random_moments_anywhere_leave_right_rows_and_whole_counts(
    databases: Databases, seed: int
) -> None:
    """In Django's and the driver's code as well, which the other tests leave alone."""
    mine = random.Random(seed)
    things = with_things(databases, prepared_max=PREPARED_MAX, max_size=SLOTS)
    things.close()
    pool = prepared_pool(things)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    askers = [Asker(pool, things.alias, f"{seed} {number}") for number in range(USERS)]
    try:
        eventually(lambda: all(asker.begun > 2 for asker in askers))
        for _ in range(INTERRUPTS):
            time.sleep(mine.random() * 0.002)
            mine.choice(askers).interrupt()
    finally:
        sys.setswitchinterval(before)
        for asker in askers:
            asker.ending = True
        for asker in askers:
            asker.join(30)
    assert not any(asker.is_alive() for asker in askers), pool.as_table()
    assert [repr(error) for asker in askers for error in asker.failures] == []
    assert sum(asker.hits for asker in askers) > 0.8 * INTERRUPTS
    gc.collect()
    scene = Scene(things, list(TEXTS))
    with contextlib.ExitStack() as all_slots:
        for _ in range(SLOTS - 1):
            all_slots.enter_context(pool.connection(timeout=10))
        for number, text in itertools.product(ROWS, TEXTS):
            scene.ask(text, number)
        _assert_whole(scene, TEXTS[0])
