"""What is remembered of a session's traces, and which of them a rollback takes back. PAINS 26."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from django_psycopg_pooled.session import ANYTHING, UNDONE_BY_ROLLBACK, Effect, Session

SETTINGS = int(Effect.SETTINGS)
LOCKS = int(Effect.LOCKS)
PREPARED = int(Effect.PREPARED)
ENDS = int(Effect.ENDS_TRANSACTION)
STAYING = sorted(Effect(e) for e in ANYTHING & ~UNDONE_BY_ROLLBACK if e is not Effect(ENDS))


def watched(effects: int = int(ANYTHING | Effect.LASTING)) -> Session:
    session = Session()
    session.watched = effects
    return session


@dataclass
class NamedCursor:
    """What a Session asks of a named cursor."""

    withhold: bool = True
    closed: bool = False
    sent_away: list[str] = field(default_factory=list)

    def abandon(self) -> None:
        self.sent_away.append("abandoned")


def test_a_new_session_is_clean() -> None:
    assert watched().dirt == watched().leftovers() == 0


def test_what_runs_outside_a_transaction_stays() -> None:
    session = watched()
    session.note(SETTINGS, in_transaction=False)
    session.rolled_back()
    assert session.leftovers() == SETTINGS


@pytest.mark.parametrize("effect", sorted(UNDONE_BY_ROLLBACK), ids=lambda e: e.name)
def test_a_rollback_takes_back_what_postgresql_takes_back(effect: Effect) -> None:
    session = watched()
    session.note(int(effect), in_transaction=True)
    assert session.dirt, "an open transaction's effects count as dirt too"
    session.rolled_back()
    assert session.dirt == session.leftovers() == 0


@pytest.mark.parametrize("effect", [*STAYING, Effect.LASTING], ids=lambda e: e.name)
def test_a_rollback_does_not_take_back_the_rest(effect: Effect) -> None:
    session = watched()
    session.note(int(effect), in_transaction=True)
    session.rolled_back()
    assert session.leftovers() == effect


def test_there_is_an_effect_of_each_kind() -> None:
    assert STAYING == [Effect.LOCKS, Effect.PREPARED, Effect.SEED]


def test_a_transaction_that_ended_otherwise_leaves_its_effects() -> None:
    session = watched()
    session.note(SETTINGS, in_transaction=True)
    session.settle()
    session.rolled_back()
    assert session.leftovers() == SETTINGS


def test_an_open_transaction_that_nobody_rolled_back_counts_as_committed() -> None:
    session = watched()
    session.note(SETTINGS, in_transaction=True)
    assert session.leftovers() == SETTINGS


def test_a_later_rollback_takes_back_the_later_transaction_only() -> None:
    session = watched()
    session.note(SETTINGS, in_transaction=True)
    session.note(ENDS, in_transaction=True)
    session.note(int(Effect.CHANNELS), in_transaction=True)
    session.rolled_back()
    assert session.leftovers() == SETTINGS


def test_a_text_that_also_ends_the_transaction_stays_whatever_comes_then() -> None:
    session = watched()
    session.note(SETTINGS | ENDS, in_transaction=True)
    session.rolled_back()
    assert session.leftovers() == SETTINGS


def test_what_the_pool_does_not_watch_is_not_noted() -> None:
    session = watched(LOCKS)
    for in_transaction in (False, True):
        session.note(SETTINGS | PREPARED | ENDS, in_transaction=in_transaction)
    assert session.leftovers() == 0
    session.note(LOCKS, in_transaction=False)
    assert session.leftovers() == LOCKS


def test_unwatched_ends_of_transactions_are_heeded_all_the_same() -> None:
    session = watched(SETTINGS)
    session.note(SETTINGS, in_transaction=True)
    session.note(ENDS, in_transaction=True)
    session.rolled_back()
    assert session.leftovers() == SETTINGS


def test_effects_of_many_kinds_do_not_run_into_each_other() -> None:
    session = watched()
    session.note(int(UNDONE_BY_ROLLBACK), in_transaction=True)
    session.note(LOCKS | PREPARED, in_transaction=True)
    session.rolled_back()
    assert session.leftovers() == LOCKS | PREPARED
    assert int(ANYTHING | Effect.LASTING | Effect.OUSTED) < 1 << 16


def test_a_held_cursor_counts_until_it_is_closed() -> None:
    session = watched()
    cursor = NamedCursor()
    session.hold(cursor)
    assert not session.dirt
    assert session.leftovers() == Effect.CURSORS
    session.dirt = 0
    assert session.leftovers() == 0, "it is forgotten with the reset"
    session.hold(NamedCursor(closed=True))
    assert session.leftovers() == 0


def test_a_cursor_that_ends_with_its_transaction_leaves_nothing() -> None:
    session = watched()
    session.hold(NamedCursor(withhold=False))
    assert session.leftovers() == 0
    assert session.held == []


def test_a_held_cursor_that_nobody_has_goes_at_once_and_is_undone_with_the_loan() -> None:
    """It may have all its rows: 2,000 cursors that nobody closed took 350 MB."""
    session = watched()
    for _ in range(100):
        cursor = NamedCursor()
        session.hold(cursor)
        gone = weakref.ref(cursor)
        del cursor
        assert gone() is None
    assert len(session.held) == 2, "one stands for those that went"
    assert session.leftovers() == Effect.CURSORS


def test_a_held_cursor_that_was_lost_is_remembered_when_the_others_are_closed() -> None:
    session = watched()
    session.hold(NamedCursor())
    cursor = NamedCursor()
    session.hold(cursor)
    assert session.holds(cursor)
    cursor.closed = True
    session.let_go(cursor)
    assert not session.holds(cursor)
    assert session.held, "the pool looks at this alone"
    assert session.leftovers() == Effect.CURSORS


def test_a_held_cursor_that_was_closed_and_went_leaves_nothing() -> None:
    session = watched()
    cursor = NamedCursor()
    session.hold(cursor)
    session.hold(cursor)
    session.let_go(cursor)
    del cursor
    assert session.leftovers() == 0


def test_a_lost_cursors_place_in_memory_tells_nothing_of_the_next_one_there() -> None:
    session = watched()
    session.hold(NamedCursor())
    for _ in range(10):
        cursor = NamedCursor()
        session.hold(cursor)
        session.let_go(cursor)
        del cursor
    assert session.leftovers() == Effect.CURSORS


def test_a_cursor_is_held_that_was_opened_while_a_finalizer_closed_another() -> None:
    session = watched()
    first, second = NamedCursor(), NamedCursor()
    session.hold(first)

    class Interrupted(list[Any]):
        """Another thread has its turn when this was read."""

        def __iter__(self) -> Iterator[Any]:
            read = list(super().__iter__())
            session.held = read
            session.hold(second)
            return iter(read)

    session.held = Interrupted(session.held)
    session.let_go(first)
    assert not session.holds(first)
    assert session.holds(second)


def test_of_two_equal_cursors_the_one_that_was_closed_goes() -> None:
    session = watched()
    first, second = NamedCursor(), NamedCursor()
    assert first == second
    session.hold(first)
    session.hold(second)
    session.let_go(second)
    assert session.holds(first)
    assert not session.holds(second)


def test_closed_cursors_do_not_gather() -> None:
    session = watched()
    for _ in range(100):
        session.hold(NamedCursor(closed=True))
    assert len(session.held) == 1
