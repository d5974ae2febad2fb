"""An exception from outside wherever one can come in a statement that runs prepared, or is to be.

The next statements on that connection find right rows, no error about prepared statements reaches
anybody, and what is counted stays countable.
"""

import contextlib
import importlib.util
import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from django.db import Error, transaction

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.things import prepared_pool, with_things
from tests.stress import preparing_scene
from tests.stress import test_interrupt_at_every_opcode as every_opcode
from tests.stress.preparing_scene import PREPARED_MAX, ROWS, Scene, assert_whole
from tests.stress.seeds import seeds

_interruptible = preparing_scene._interruptible
if sys.version_info >= (3, 12):  # the Interrupter needs it there
    _monitored = every_opcode._monitored

# Places of each story: all in ALWAYS; at random in preparing and its drivers, and elsewhere.
ALWAYS = ("/preparing/keeper.py",)
NEARBY = ("/preparing/", "/execution/", "_binding.py", "/psycopg/")
NEAR, FAR = 8, 2
STORIES_TOLD = 10
if sys.version_info >= (3, 12):
    STORIES_TOLD = 4  # each instruction is watched all the while, which takes several times as long


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
    assert_whole(scene, sql)


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
