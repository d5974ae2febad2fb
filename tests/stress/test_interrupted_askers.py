"""Exceptions thrown into threads that execute prepared statements, at random moments.

The next statements find right rows, and every count and lock is whole. Instructions are not watched
here, as beside this file: a callback on each lets Python throw what it has been given between any
two, where it never does by itself; so between a block of `with lock` and giving the lock back.
"""

import contextlib
import gc
import itertools
import random
import sys
import time

import pytest
from django.db import Error, connections, transaction

from django_psycopg_pooled.pool.pool import Pool
from tests.server.databases import Databases
from tests.server.support import eventually, value, wrapper
from tests.server.things import prepared_pool, with_things
from tests.stress import preparing_scene
from tests.stress.preparing_scene import PREPARED_MAX, ROWS, Scene, assert_whole
from tests.stress.seeds import seeds
from tests.stress.test_interrupts import User

_interruptible = preparing_scene._interruptible

INTERRUPTS, USERS, SLOTS = 200, 3, 2


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
        assert_whole(scene, TEXTS[0])
