"""Durations in buckets: what percentiles say, and that they can be added up."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_psycopg_pooled.stats.histogram import LONGEST, SHORTEST, Histogram

durations = st.lists(st.floats(SHORTEST, LONGEST), min_size=1, max_size=50)


def _of(*seconds: float) -> Histogram:
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    return histogram


def _true_percentile(seconds: list[float], percent: float) -> float:
    return sorted(seconds)[max(math.ceil(len(seconds) * percent / 100), 1) - 1]


@given(durations, st.floats(0, 100))
def test_a_percentile_is_right_to_4_4_percent(seconds: list[float], percent: float) -> None:
    found = _of(*seconds).percentile(percent)
    assert found == pytest.approx(_true_percentile(seconds, percent), rel=0.0443)


@given(durations, durations, durations)
def test_merging_is_exact_in_any_order(a: list[float], b: list[float], c: list[float]) -> None:
    together, backwards = _of(*a), _of(*c)
    for more in (b, c):
        together.merge(_of(*more))
    for more in (b, a):
        backwards.merge(_of(*more))
    assert together.buckets == backwards.buckets == _of(*a, *b, *c).buckets


def test_a_bucket_holds_its_upper_bound_and_not_its_lower_one_as_opentelemetrys() -> None:
    assert _of(1.0, 2.0).buckets == {-1: 1, 7: 1}
    assert _of(1.0000001).buckets == {0: 1}


@pytest.mark.parametrize("odd", [0.0, -1.0, 1e-12, 1e9, math.inf])
def test_durations_that_no_clock_measures_are_counted_at_the_ends(odd: float) -> None:
    end = LONGEST if odd > LONGEST else SHORTEST
    assert _of(odd).buckets == _of(end).buckets


def test_there_are_at_most_four_hundred_buckets() -> None:
    rng = random.Random(1)
    histogram = _of(*(10 ** rng.uniform(-12, 12) for _ in range(20_000)))
    assert sum(histogram.buckets.values()) == 20_000
    assert len(histogram.buckets) <= 400


def test_of_nothing_every_percentile_is_nothing() -> None:
    assert Histogram().percentile(99) == 0.0


def test_a_copy_of_the_buckets_makes_the_same_histogram_of_its_own() -> None:
    first = _of(0.001, 0.002)
    second = Histogram(first.buckets)
    second.record(0.001)
    assert sum(first.buckets.values()) == 2
    assert sum(second.buckets.values()) == 3


def test_another_process_makes_the_same_histogram_of_its_json() -> None:
    first = _of(0.001, 0.001, 3.0)
    told = json.loads(json.dumps(first.as_json()))
    assert len(told["buckets"]) == 2  # empty ones are not told
    second = Histogram.of_json(told)
    assert second is not None
    assert second.buckets == first.buckets


@pytest.mark.parametrize("told", [None, 7, {}, {"scale": 4, "buckets": {"0": 1}}])
def test_of_no_histogram_or_one_with_other_buckets_none_is_made(told: object) -> None:
    assert Histogram.of_json(told) is None


@pytest.mark.parametrize("percent", [-1, 101, math.nan])
def test_a_percentage_out_of_bounds_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 100"):
        _of(1.0).percentile(percent)
