"""What happens when a prepared statement is stale, or not there any more."""

import pytest

from tests.unit.scripted_binding import Refused, Scene
from tests.unit.test_preparing_policy import SQL, TWO, hot

OUTDATED = ("0A000", True)


@pytest.mark.parametrize(
    "error", [Refused(*OUTDATED), Refused("26000"), Refused("42883")], ids=lambda e: e.sqlstate
)
def test_outside_a_transaction_nobody_notices_a_stale_statement(error: Refused) -> None:
    scene = hot()
    scene.binding.on_run = [error]
    assert scene.execute(SQL, 1) == "plain"
    assert scene.execute(SQL, 1) == "prepared"
    assert scene.log().endswith("plain, close, prepare, run")


@pytest.mark.parametrize(
    "error", [Refused(*OUTDATED), Refused("26000"), Refused("42883")], ids=lambda e: e.sqlstate
)
def test_in_a_transaction_a_stale_statement_raises_once(error: Refused) -> None:
    scene = hot()
    scene.cursor.connection.inside = True
    scene.binding.on_run = [error]
    with pytest.raises(Refused) as caught:
        scene.execute(SQL, 1)
    assert caught.value is error
    assert scene.execute(SQL, 1) == "prepared"
    other = scene.connect()
    other.connection.inside = True
    assert scene.execute(SQL, 1, cursor=other) == "prepared"


def test_a_stale_statement_gets_another_name_on_every_connection() -> None:
    scene = hot()
    other = scene.connect()
    scene.execute(SQL, 1, cursor=other)
    [before] = other.connection.served
    scene.binding.on_run = [Refused(*OUTDATED)]
    scene.execute(SQL, 1)
    scene.execute(SQL, 1, cursor=other)
    [after] = other.connection.served
    assert before.name != after.name


def test_one_stale_statement_has_all_others_prepared_anew() -> None:
    """Else each of a transaction's statements would fail one more attempt."""
    scene = hot()
    for number in range(4):
        scene.execute(TWO, number, number)
    before = {statement.name for statement in scene.cursor.connection.served}
    assert len(before) == 2
    scene.cursor.connection.inside = True
    scene.binding.on_run = [Refused(*OUTDATED)]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    scene.cursor.connection.inside = False
    assert scene.execute(TWO, 1, 2) == "prepared"
    assert scene.execute(SQL, 1) == "prepared"
    assert not before & {statement.name for statement in scene.cursor.connection.served}


def test_after_a_change_of_the_schema_the_first_prepare_is_guarded_again() -> None:
    scene = hot()
    scene.preparer.bump()
    scene.cursor.connection.inside = True
    scene.execute(SQL, 1)
    assert scene.log() == "close, guarded prepare, run"


@pytest.mark.parametrize("code", ["23505", "22012", "42501", "57014", "0A000"])
def test_an_error_of_the_statement_itself_is_raised_and_not_run_twice(code: str) -> None:
    scene = hot()
    scene.binding.on_run = [Refused(code)]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    assert scene.log() == "run"
    assert scene.execute(SQL, 1) == "prepared"


def test_what_is_outdated_before_it_is_prepared_runs_as_it_is_for_good() -> None:
    """The driver goes on naming a type that is gone."""
    scene = hot()
    other = scene.connect()
    scene.binding.on_prepare = [Refused("XX000", True)]
    assert scene.execute(SQL, 1, cursor=other) == "plain"
    assert scene.execute(SQL, 1, cursor=other) == "plain"
    [facts] = scene.preparer.report()
    assert (facts.state, facts.sqlstate) == ("denied", "XX000")


def test_what_is_outdated_before_it_is_prepared_raises_in_a_transaction_once() -> None:
    scene = hot()
    other = scene.connect()
    other.connection.inside = True
    scene.binding.on_prepare = [Refused("XX000", True), Refused("XX000", True)]
    with pytest.raises(Refused):
        scene.execute(SQL, 1, cursor=other)
    other.connection.broken = False
    assert scene.execute(SQL, 1, cursor=other) == "plain"
    assert not other.connection.broken


def test_an_error_that_plain_execution_has_too_does_not_make_it_stale() -> None:
    scene = hot()
    scene.binding.on_run = [Refused("42P01")]
    scene.binding.on_plain = [Refused("42P01")]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    assert scene.log() == "run, plain"
    scene.execute(SQL, 1)
    assert scene.log() == "run"


def test_when_one_statement_is_gone_the_others_are_not_relied_on() -> None:
    scene = hot()
    scene.execute(TWO, 1, 2)
    scene.binding.on_run = [Refused("26000")]
    scene.execute(SQL, 1)
    scene.log()
    scene.execute(TWO, 1, 2)
    assert scene.log() == "close, prepare, run"


def test_what_is_there_already_is_the_same_by_its_name() -> None:
    scene = Scene(threshold=2)
    plan = scene.record(SQL).plan
    variant = plan.variant(("int",))
    scene.cursor.connection.served.append(variant.statement)
    scene.execute(SQL, 1)
    scene.execute(SQL, 1)
    scene.binding.on_prepare = [Refused("42P05")]
    assert scene.execute(SQL, 1) == "prepared"
    assert scene.log() == "plain, plain, prepare, ask, run"


def test_behind_a_pooler_preparing_ends_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = hot()
    scene.execute(TWO, 1, 2)
    scene.binding.elsewhere = True
    for code in ("26000", "26000"):
        scene.binding.on_run = [Refused(code)]
        assert scene.execute(SQL, 1) == "plain"
    assert scene.execute(TWO, 1, 2) == "plain"
    assert scene.preparer.off
    [warning] = caplog.messages
    assert 'pooler="pgbouncer"' in warning
    assert "PgBouncer >= 1.21" in warning


def test_a_loss_in_a_transaction_has_the_pooler_looked_for_at_the_next_prepare() -> None:
    scene = hot()
    scene.cursor.connection.inside = True
    scene.binding.elsewhere = True
    scene.binding.on_run = [Refused("26000")]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    assert not scene.preparer.off
    assert scene.execute(SQL, 1) == "plain"
    assert scene.preparer.off


def test_a_pooler_that_does_not_bear_the_question_is_asked_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PgBouncer in statement mode ends connections for what it does not bear."""
    scene = Scene(threshold=0, asks=True)
    scene.binding.elsewhere = True
    scene.binding.on_probe = [Refused("08P01")]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    scene.cursor = scene.connect()
    assert [scene.execute(SQL, 1), scene.execute(SQL, 1)] == ["plain", "plain"]
    assert scene.log() == "ask, probe, plain, plain"
    assert len(caplog.messages) == 1


def test_a_question_that_was_cancelled_is_asked_again() -> None:
    scene = Scene(threshold=0, asks=True)
    scene.binding.elsewhere = True
    scene.binding.on_probe = [Refused("57014")]
    with pytest.raises(Refused):
        scene.execute(SQL, 1)
    scene.cursor = scene.connect()
    scene.binding.elsewhere = False
    assert scene.execute(SQL, 1) == "prepared"


def test_a_text_that_goes_stale_again_and_again_is_demoted() -> None:
    scene = hot()
    for _ in range(5):
        scene.binding.on_run = [Refused(*OUTDATED)]
        scene.execute(SQL, 1)
    [facts] = scene.preparer.report()
    assert facts.state == "demoted"
    assert scene.execute(SQL, 1) == "plain"


def test_a_text_that_goes_stale_now_and_then_stays_prepared() -> None:
    scene = hot()
    for _ in range(20):
        scene.binding.on_run = [Refused(*OUTDATED)]
        scene.execute(SQL, 1)
        scene.clock.advance(61)
        scene.execute(SQL, 1)
    [facts] = scene.preparer.report()
    assert facts.state == "prepared"
