"""What the tests share that throw exceptions into statements which run prepared."""

import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.statements.journal import Journal
from tests.server.support import eventually
from tests.server.things import prepared_pool
from tests.unit.scripted_pool import audit

PREPARED_MAX = 2
NAMES = "SELECT name FROM pg_prepared_statements WHERE starts_with(name, '_dpp_')"
ROWS = {1: "one", 2: "two", 3: "three"}


@pytest.fixture(autouse=True)
def _interruptible(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For a module that imports it."""
    # What is thrown into a finalizer is forgotten, as Python does once it has printed it; pytest
    # would make it an error.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    # Each execution is to be counted at once.
    monkeypatch.setattr("django_psycopg_pooled.execution.watched.FOLD_AT", 1)
    # logging takes its locks where an exception from outside can come before they are given up.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


_numbers = itertools.count(1)


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
        [name] = [name_of(h) for h in self.holdings().values() if h.plan.sql == sql]
        with unwatched(self.things.connection) as cursor:
            cursor.execute(f"DEALLOCATE {name}")

    @property
    def journal(self) -> Journal:
        journal = prepared_pool(self.things)._statements.journal
        assert journal is not None
        return journal

    def calls(self) -> int:
        """How many executions the journal has counted."""
        return sum(each.calls for each in prepared_pool(self.things).queries.top(10_000))


def name_of(held: Any) -> str:
    name = held.statement.name
    return name.decode() if isinstance(name, bytes) else str(name)


def unwatched(connection: Any) -> Any:
    """A cursor that tells the pool of nothing."""
    if is_psycopg3:
        from psycopg import Cursor

        return Cursor(connection)
    from psycopg2 import extensions

    return extensions.connection.cursor(connection, cursor_factory=extensions.cursor)


def assert_whole(scene: Scene, sql: str) -> None:
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
    held = {name_of(each) for each in scene.holdings().values()}
    with unwatched(scene.things.connection) as cursor:
        cursor.execute(NAMES)
        there = {name for (name,) in cursor.fetchall()}
        cursor.execute("SHOW plan_cache_mode")
        assert cursor.fetchone() == ("auto",)
    assert there <= held, "nobody will ever close these"
    assert len(held) <= PREPARED_MAX
    scene.things.close()
    audit(pool)
