"""When a text is prepared, where, under which name, and when not."""

import gc
import logging
import weakref
from typing import Any

import pytest

from django_psycopg_pooled import forking
from django_psycopg_pooled.preparing.plan import MOST_VARIANTS
from django_psycopg_pooled.preparing.preparer import AS_IT_IS, Preparer
from tests.unit.scripted_binding import Record, Refused, Scene, ScriptedBinding

SQL = "SELECT a FROM t WHERE id = %s"
TWO = "SELECT a FROM t WHERE id = %s AND b = %s"


def hot(**settings: Any) -> Scene:
    """A scene in which SQL is prepared on its first connection."""
    scene = Scene(threshold=0, **settings)
    assert scene.execute(SQL, 1) == "prepared"
    scene.log()
    return scene


def test_a_text_is_prepared_after_as_many_executions_as_the_threshold_says() -> None:
    scene = Scene(threshold=2)
    assert [scene.execute(SQL, 1) for _ in range(4)] == ["plain", "plain", "prepared", "prepared"]
    assert scene.log() == "plain, plain, prepare, run, run"


def test_each_connection_prepares_a_hot_text_once() -> None:
    scene = hot()
    other = scene.connect()
    for _ in range(3):
        scene.execute(SQL, 1, cursor=other)
    assert scene.log() == "prepare, run, run, run"
    [facts] = scene.preparer.report()
    assert (facts.connections, facts.hits, facts.variants, facts.state) == (2, 4, 1, "prepared")


def test_the_name_says_the_text_the_types_and_the_generation_and_no_more() -> None:
    def names(*executions: tuple[Any, ...]) -> list[str]:
        scene = Scene(threshold=0)
        for sql, *params in executions:
            scene.execute(sql, *params)
        return [statement.name for statement in scene.cursor.connection.served]

    a, b, c = names((SQL, 1), (SQL, "x"), (TWO, 1, 2))
    assert len({a, b, c}) == 3
    assert names((SQL, 2)) == [a], "another process comes to the same name"
    assert all(name.startswith("_dpp_") and len(name) < 64 for name in (a, b, c))


def test_the_first_prepare_of_a_text_in_a_transaction_is_guarded_and_no_other() -> None:
    scene = Scene(threshold=0)
    scene.cursor.connection.inside = True
    other = scene.connect()
    other.connection.inside = True
    scene.execute(SQL, 1)
    scene.execute(SQL, 1, cursor=other)
    assert scene.log() == "guarded prepare, run, prepare, run"


@pytest.mark.parametrize("inside", [False, True])
def test_a_text_that_cannot_be_prepared_is_denied_and_runs_as_it_is(inside: bool) -> None:
    scene = Scene(threshold=0)
    scene.cursor.connection.inside = inside
    scene.binding.on_prepare = [Refused("42P18")]
    assert scene.execute(SQL, 1) == "plain"
    assert not scene.cursor.connection.broken
    assert scene.record(SQL).plan is None
    assert scene.execute(SQL, 1) == "plain"
    assert scene.log().count("prepare") == 1
    [facts] = scene.preparer.report()
    assert (facts.state, facts.sqlstate) == ("denied", "42P18")
    assert "Refused" in facts.reason
    assert facts.text == SQL.upper()


def test_a_text_that_cannot_be_executed_either_is_not_denied_for_it() -> None:
    scene = Scene(threshold=0)
    scene.binding.on_prepare = [Refused("42P01")]
    scene.binding.on_plain = [Refused("42P01")]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    assert scene.execute(SQL, 1) == "prepared", "the table is there now"


@pytest.mark.parametrize("code", ["57014", "55P03", "08006", ""])
def test_a_prepare_that_fails_for_another_reason_raises_and_denies_nothing(code: str) -> None:
    scene = Scene(threshold=0)
    scene.binding.on_prepare = [Refused(code)]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    assert scene.log() == "prepare", "it was executed although it was cancelled"
    assert scene.execute(SQL, 1) == "prepared"


def test_null_runs_with_any_types_that_the_text_is_prepared_for() -> None:
    scene = Scene(threshold=0)
    for params in [(1, "x"), (None, "x"), (1, None), (None, None)]:
        assert scene.execute(TWO, *params) == "prepared"
    assert scene.log().count("prepare") == 1


def test_null_before_anything_else_is_declared_as_a_string_is() -> None:
    scene = Scene(threshold=0)
    scene.execute(SQL, None)
    [statement] = scene.cursor.connection.served
    assert statement.types == ("?",)
    scene.execute(SQL, 1)
    scene.execute(SQL, None)
    assert scene.log() == "prepare, run, prepare, run, run"


def test_a_text_with_too_many_combinations_of_types_is_denied() -> None:
    scene = Scene(threshold=0)
    values: list[Any] = [1, "x", 1.5, b"x", True]
    assert len(values) == MOST_VARIANTS + 1
    ways = [scene.execute(SQL, value) for value in values]
    assert ways == ["prepared"] * MOST_VARIANTS + ["plain"]
    assert scene.execute(SQL, 1) == "plain"
    [facts] = scene.preparer.report()
    assert facts.state == "denied"
    assert "4 combinations" in facts.reason


def test_the_one_unused_for_longest_makes_room() -> None:
    scene = Scene(threshold=0, prepared_max=2)
    first, second, third = (f"SELECT {c} FROM t WHERE id = %s" for c in "abc")
    for sql in (first, second, first, third):
        scene.execute(sql, 1)
    assert [s.sql[7] for s in scene.cursor.connection.served] == ["a", "c"]
    assert len(scene.cursor.connection._pool_session.prepared) == 2
    scene.log()
    scene.execute(second, 1)
    assert scene.log() == "close, prepare, run"


def test_parameters_that_do_not_fit_the_text_are_left_to_plain_execution() -> None:
    scene = Scene(threshold=0)
    assert scene.execute(SQL, 1, 2) == "plain"
    assert scene.execute(SQL) == "plain"
    scene.binding.bindable = False
    assert scene.execute(SQL, 1) == "plain"
    assert scene.log() == "plain, plain, plain"


def test_parameters_without_a_truth_are_not_asked_for_it() -> None:
    class Array(tuple[int]):
        def __bool__(self) -> bool:
            raise ValueError("the truth of an array is ambiguous")

    scene = Scene(threshold=0)
    plan = scene.record(SQL).plan
    way = scene.preparer.execute(scene.cursor, scene.binding.plain, plan, SQL, Array((1,)))
    assert way == "plain"


def test_a_text_of_bytes_is_sent_as_it_is() -> None:
    scene = hot()
    plan = scene.record(SQL).plan
    preparer, plain = scene.preparer, scene.binding.plain
    assert preparer.execute(scene.cursor, plain, plan, SQL.encode(), (1,)) == "plain"


def test_a_preparer_goes_without_the_garbage_collector() -> None:
    scene = hot()
    gone = weakref.ref(scene.preparer)
    gc.disable()
    try:
        del scene
        assert gone() is None
    finally:
        gc.enable()


def test_in_a_child_of_fork_no_lock_of_the_parents_is_waited_for() -> None:
    scene = hot()
    plan = scene.record(SQL).plan
    with plan._lock, scene.preparer._lock:
        forking._restart_all()
        scene.preparer.bump()
        assert scene.execute(SQL, 1) == "prepared"


def test_what_has_effects_on_the_session_or_no_parameters_has_no_plan() -> None:
    preparer = Scene().preparer
    assert preparer.plan_for(Record("SELECT set_config('a', %s, false)", effects=1)) is None
    assert preparer.plan_for(Record("SELECT 1")) is None
    assert preparer.plan_for(Record("SET x = %s")) is None
    assert preparer.plan_for(Record(SQL)) is not None


def test_before_anything_is_prepared_it_is_asked_once_who_answers() -> None:
    scene = Scene(asks=True, threshold=0)
    assert [scene.execute(SQL, i) for i in range(3)] == ["prepared"] * 3
    assert scene.binding.log.count("ask") == 1
    assert scene.binding.log[0] == "ask"


def test_behind_a_pooler_that_mixes_sessions_nothing_is_ever_prepared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(asks=True, threshold=0)
    scene.binding.elsewhere = True
    assert [scene.execute(SQL, i) for i in range(3)] == ["plain"] * 3
    assert "prepare" not in scene.binding.log
    assert scene.preparer.off
    assert 'Set pooler="pgbouncer"' in caplog.text


def test_without_a_word_of_the_user_the_driver_decides() -> None:
    scene = Scene(mode=None)
    assert not scene.preparer.off
    scene.binding.by_default = False
    assert Preparer(scene.binding, name="shop", mode=None, shown=str).off


def test_nothing_has_a_plan_when_preparing_is_off() -> None:
    scene = Scene(mode=False)
    assert scene.preparer.off
    assert scene.preparer.plan_for(Record(SQL)) is None


def test_a_driver_that_cannot_prepare_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    class Old(ScriptedBinding):
        unavailable = "psycopg 4 has no Cursor._tx"

    preparer = Preparer(Old(Scene().clock), name="shop", mode="auto", shown=str)
    assert preparer.off
    assert "psycopg 4 has no Cursor._tx" in caplog.text


def test_a_registered_text_is_prepared_at_once_and_alone() -> None:
    scene = Scene(mode="registered")
    assert scene.execute(SQL, 1) == scene.execute(TWO, 1, 2) == "plain"
    scene.preparer.register(SQL, "by id", "force_generic_plan")
    assert scene.execute(SQL, 1) == "prepared"
    for _ in range(10):
        assert scene.execute(TWO, 1, 2) == "plain"
    [statement] = scene.cursor.connection.served
    assert statement.mode == "force_generic_plan"
    assert [facts.name for facts in scene.preparer.report()] == ["by id"]


def test_a_registered_text_that_cannot_be_prepared_is_reported() -> None:
    scene = Scene(mode="registered")
    scene.preparer.register("LOCK TABLE t")
    scene.preparer.register("SELECT 1")
    assert [facts.state for facts in scene.preparer.report()] == ["denied", "denied"]
    with pytest.raises(ValueError, match="force_custom_plan"):
        scene.preparer.register(SQL, plan_cache_mode="generic")


def test_a_text_that_is_registered_late_is_prepared_anew_as_it_says() -> None:
    scene = hot()
    [before] = scene.cursor.connection.served
    scene.preparer.register(SQL, "by id", "force_generic_plan")
    assert scene.execute(SQL, 1) == "prepared"
    [after] = scene.cursor.connection.served
    assert (before.mode, after.mode) == ("", "force_generic_plan")
    assert before.name != after.name


def test_a_page_is_prepared_only_if_it_is_registered() -> None:
    scene = Scene(threshold=0)
    page = f"{SQL} LIMIT 10 OFFSET 20"
    assert scene.execute(page, 1) == "plain"
    scene.preparer.register(page)
    assert scene.execute(page, 1) == "prepared"


def test_placeholders_inside_of_quotes_are_left_to_the_driver() -> None:
    scene = Scene(threshold=0)
    sql = "SELECT '%s' FROM t WHERE id = %s"
    assert scene.execute(sql, 1, 2) == "plain"
    assert scene.record(sql).plan is None
    [facts] = scene.preparer.report()
    assert "quotes" in facts.reason


def test_an_interrupted_prepare_is_closed_before_it_is_prepared_again() -> None:
    scene = Scene(threshold=0)

    class Interrupt(BaseException):
        pass

    prepare = scene.binding.prepare

    def interrupted(cursor: Any, statement: Any, *, guarded: bool) -> None:
        prepare(cursor, statement, guarded=guarded)
        raise Interrupt

    scene.binding.prepare = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupt):
        scene.execute(SQL, 1)
    scene.binding.prepare = prepare  # type: ignore[method-assign]
    scene.log()
    assert scene.execute(SQL, 1) == "prepared"
    assert scene.log() == "close, prepare, run"


def test_in_a_schema_editor_a_hot_text_runs_as_it_is() -> None:
    scene = hot()
    plan = scene.record(SQL).plan
    way = AS_IT_IS.execute(scene.cursor, scene.binding.plain, plan, SQL, (1,))
    assert (way, scene.log()) == ("plain", "plain")


def test_a_flood_of_texts_does_not_make_a_hot_one_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_psycopg_pooled.preparing.preparer.MOST_PLANS", 3)
    scene = hot()
    plan = scene.record(SQL).plan
    assert scene.preparer.plan_for(Record(SQL)) is plan
    for column in "bcd":
        scene.execute(f"SELECT {column} FROM t WHERE id = %s", 1)
    assert len(scene.preparer.report()) == 3
    scene.record(SQL).plan = again = scene.preparer.plan_for(Record(SQL))
    assert again is not plan
    assert scene.execute(SQL, 1) == "prepared"
    names = [statement.name for statement in scene.cursor.connection.served]
    assert len(set(names)) == len(names) == 5


def test_a_denial_is_logged_once_without_a_parameter(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene(threshold=0)
    scene.binding.on_prepare = [Refused("42P18")]
    for _ in range(3):
        scene.execute(SQL, 4711)
    [line] = caplog.messages
    assert "42P18" in line
    assert SQL.upper() in line
    assert "4711" not in line
