"""A text that is slower prepared is not prepared."""

import logging
from collections.abc import Callable
from random import Random

import pytest

from django_psycopg_pooled.preparing.figures import Sample, chance
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
    scene, ways = measured(10, calls=1000)
    assert scene.preparer.report()[0].state == "demoted"
    assert ways.count("prepared") < 60


def test_one_slow_execution_in_the_first_ten_is_enough() -> None:
    scene = Scene(threshold=5)
    slow = 0
    for i in range(1000):
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


def test_a_hiccup_of_the_first_execution_hides_nothing() -> None:
    scene = Scene(threshold=5)
    scene.binding.prepared_s = 0.033
    ways = []
    for i in range(100):
        scene.binding.plain_s = 0.13 if i == 0 else 0.0001
        ways.append(scene.execute(SQL, i))
    assert scene.preparer.report()[0].state == "demoted"
    assert ways.count("prepared") <= 10


def test_a_hiccup_of_the_comparison_acquits_nothing() -> None:
    scene = Scene(threshold=5)
    scene.binding.plain_s, scene.binding.prepared_s = 0.0001, 0.033
    ways = [scene.execute(SQL, i) for i in range(5)]
    while ways[-1] == "prepared" or ways.count("prepared") == 0:
        ways.append(scene.execute(SQL, 1))
    scene.binding.plain_s = 0.5
    scene.execute(SQL, 1)
    scene.binding.plain_s = 0.0001
    assert [scene.execute(SQL, 1) for _ in range(100)].count("prepared") == 0
    assert scene.preparer.report()[0].state == "demoted"


Draw = Callable[[Random], float]


def demoted(plain_s: Draw, prepared_s: Draw) -> int:
    """In how many of 20 scenes it is demoted by 3,000 executions that take what is drawn."""
    states = []
    for seed in range(20):
        scene, random = Scene(threshold=5), Random(seed)
        for i in range(3000):
            scene.binding.plain_s, scene.binding.prepared_s = plain_s(random), prepared_s(random)
            scene.execute(SQL, i)
        states.append(scene.preparer.report()[0].state)
    return states.count("demoted")


@pytest.mark.parametrize(
    ("share", "slow_s"), [(0.005, 0.3), (0.01, 0.1), (0.05, 0.1), (0.1, 0.1), (0.3, 0.1)]
)
def test_a_text_that_is_slow_at_times_in_both_ways_is_seldom_demoted(
    share: float, slow_s: float
) -> None:
    """Which waits for locks or a busy machine now and then. By means alone, most were demoted."""

    def stalls(random: Random) -> float:
        return slow_s if random.random() < share else 0.0001

    assert demoted(stalls, stalls) <= 3


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_a_text_that_is_slow_at_times_when_prepared_is_demoted(share: float) -> None:
    def rare(random: Random) -> float:
        return 0.03 if random.random() < share else 0.0001

    assert demoted(lambda _: 0.0001, rare) == 20


def test_small_hiccups_in_both_ways_do_not_hide_what_is_much_slower() -> None:
    def hiccups(random: Random) -> float:
        return 0.005 if random.random() < 0.03 else 0.0003

    def rare(random: Random) -> float:
        return 0.036 if random.random() < 0.1 else hiccups(random)

    assert demoted(hiccups, rare) == 20


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


def sample(slow: int, count: int) -> Sample:
    found = Sample()
    for i in range(count):
        found.add(2.0 if i < slow else 0.1, bar=1.0)
    return found


@pytest.mark.parametrize(
    ("seen", "other", "expected"),
    [
        ((0, 10), (5, 10), 1),
        ((1, 10), (0, 10), 1 / 2),
        ((1, 10), (0, 990), 1 / 100),
        ((10, 10), (0, 10), 1 / 2**10),
        ((2, 10), (1, 30), 10 / 64),  # 3 * 1/16 * 3/4 + 1/64
        ((700, 1000), (600, 1000), 0.003),
    ],
)
def test_the_chance_of_slow_executions(
    seen: tuple[int, int], other: tuple[int, int], expected: float
) -> None:
    assert chance(sample(*seen), sample(*other)) == pytest.approx(expected, rel=0.1)
