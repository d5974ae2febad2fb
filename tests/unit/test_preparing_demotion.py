"""A text that is slower prepared is not prepared."""

import logging

import pytest

from tests.unit.scripted_binding import Scene
from tests.unit.test_preparing_policy import SQL


def measured(slow_every: int, *, calls: int, slow_s: float = 0.033) -> tuple[Scene, list[str]]:
    """A scene after *calls* of a text of which one in *slow_every* is slow when it is prepared."""
    scene = Scene(threshold=5)
    ways = []
    for i in range(calls):
        scene.binding.plain_s = 0.0001
        scene.binding.prepared_s = slow_s if slow_every and i % slow_every == 0 else 0.0001
        ways.append(scene.execute(SQL, i))
    return scene, ways


def test_always_slow_is_demoted_after_a_few_executions() -> None:
    scene, ways = measured(1, calls=100)
    # The first five count for nothing: PostgreSQL plans them one by one.
    assert ways.count("prepared") <= 10
    [facts] = scene.preparer.report()
    assert facts.state == "demoted"
    assert facts.reason == "33 ms prepared, 0.1 ms as it is"


def test_slow_for_one_value_in_ten_is_demoted() -> None:
    scene, ways = measured(10, calls=300)
    assert scene.preparer.report()[0].state == "demoted"
    assert ways.count("prepared") < 60


def test_one_slow_execution_in_the_first_ten_is_enough() -> None:
    scene = Scene(threshold=5)
    slow = 0
    for i in range(100):
        scene.binding.plain_s = 0.0001
        scene.binding.prepared_s = 0.033 if i and i % 10 == 0 else 0.0001
        way = scene.execute(SQL, i)
        slow += way == "prepared" and scene.binding.prepared_s > 0.03
    assert scene.preparer.report()[0].state == "demoted"
    assert slow == 1


def test_as_fast_as_ever_stays_prepared_but_for_a_look_now_and_then() -> None:
    scene, ways = measured(0, calls=5000)
    assert scene.preparer.report()[0].state == "prepared"
    assert ways[5:].count("plain") == pytest.approx(5000 / 64, abs=3)


def test_the_more_it_gains_the_more_seldom_it_is_compared() -> None:
    scene = Scene(threshold=5)
    scene.binding.plain_s, scene.binding.prepared_s = 0.0010, 0.0001
    ways = [scene.execute(SQL, i) for i in range(10_000)]
    spent = ways[5:].count("plain") * scene.binding.plain_s
    assert 0 < spent < 0.02 * ways.count("prepared") * scene.binding.prepared_s


def test_slower_by_less_than_two_milliseconds_stays_prepared() -> None:
    scene, _ = measured(1, calls=1000, slow_s=0.0015)
    assert scene.preparer.report()[0].state == "prepared"


def test_one_hiccup_in_many_executions_is_nothing() -> None:
    scene, ways = measured(400, calls=2000)
    assert scene.preparer.report()[0].state == "prepared"
    assert ways.count("plain") < 100


def test_what_has_become_slow_in_both_ways_is_acquitted() -> None:
    scene, _ = measured(0, calls=100)
    scene.binding.plain_s = scene.binding.prepared_s = 0.02
    ways = [scene.execute(SQL, 1) for _ in range(200)]
    assert ways.count("plain") >= 10, "it was never suspected"
    assert scene.preparer.report()[0].state == "prepared"
    assert ways[-20:].count("prepared") >= 19


def test_it_is_tried_again_ever_later_and_three_times_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    scene, _ = measured(1, calls=50)
    scene.binding.prepared_s = 0.033

    def goes_on(seconds: float) -> int:
        scene.clock.advance(seconds)
        return [scene.execute(SQL, 1) for _ in range(50)].count("prepared")

    assert goes_on(500) == 0
    assert goes_on(100) > 0
    assert goes_on(2000) == 0
    assert goes_on(400) > 0
    assert scene.preparer.report()[0].state == "denied"
    assert goes_on(1e6) == 0
    assert len(caplog.messages) == 3
    assert "33 ms prepared, 0.1 ms as it is" in caplog.messages[0]
    assert scene.record(SQL).plan is None


def test_what_is_fast_again_stays_prepared_after_the_retry() -> None:
    scene, _ = measured(1, calls=50)
    scene.clock.advance(700)
    scene.binding.prepared_s = 0.0001
    assert [scene.execute(SQL, 1) for _ in range(50)].count("prepared") == 50
    [facts] = scene.preparer.report()
    assert (facts.state, facts.reason) == ("prepared", "")


def test_the_report_has_both_means_and_every_execution() -> None:
    scene, ways = measured(0, calls=30)
    [facts] = scene.preparer.report()
    assert facts.hits == ways.count("prepared")
    assert facts.plain_mean_s == pytest.approx(0.0001)
    assert facts.prepared_mean_s == pytest.approx(0.0001)
