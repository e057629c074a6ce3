"""Checks: which comparison gives which outcome, what the reason says, and NaN never passes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sluice.core.check import Check, compare_estimate, compare_exact, compare_interval, not_finite, too_few

COMPARISONS = {
    "interval": compare_interval,
    "estimate": compare_estimate,
}


@pytest.mark.parametrize(
    ("interval", "below", "above"),
    [
        ((1.0, 2.0), "pass", "fail"),
        ((4.0, 5.0), "fail", "pass"),
        ((2.0, 4.0), "inconclusive", "inconclusive"),
        ((2.0, 3.0), "inconclusive", "inconclusive"),
        ((3.0, 4.0), "inconclusive", "inconclusive"),
        ((-math.inf, 2.0), "pass", "fail"),
        ((1.0, math.inf), "inconclusive", "inconclusive"),
        ((math.nan, math.nan), "fail", "fail"),
    ],
)
def test_an_interval_decides_only_where_it_lies_wholly_on_one_side(interval, below, above):
    for good, outcome in (("below", below), ("above", above)):
        assert compare_interval("x", 2.5, interval, 3.0, good=good, n=9).outcome == outcome


@pytest.mark.parametrize(
    ("value", "interval", "good", "outcome"),
    [
        (3.0, (2.0, 5.0), "below", "pass"),
        (3.1, (2.0, 5.0), "below", "inconclusive"),
        (3.1, (3.0, 5.0), "below", "inconclusive"),
        (3.2, (3.1, 5.0), "below", "fail"),
        (math.inf, (math.inf, math.inf), "below", "fail"),
        (3.0, (2.0, 5.0), "above", "pass"),
        (2.9, (2.0, 3.0), "above", "inconclusive"),
        (2.8, (2.0, 2.9), "above", "fail"),
        (math.nan, (2.0, 5.0), "below", "fail"),
    ],
)
def test_an_estimate_passes_at_its_bound_and_fails_only_with_its_interval(value, interval, good, outcome):
    assert compare_estimate("x", value, interval, 3.0, good=good, n=9).outcome == outcome


@pytest.mark.parametrize(
    ("value", "good", "outcome"),
    [
        (3.0, "below", "pass"),
        (3.1, "below", "fail"),
        (3.0, "above", "pass"),
        (2.9, "above", "fail"),
        (math.nan, "below", "fail"),
        (math.nan, "above", "fail"),
    ],
)
def test_an_exact_value_passes_at_its_bound_and_is_never_inconclusive(value, good, outcome):
    assert compare_exact("x", value, 3.0, good=good, n=9).outcome == outcome


def test_reasons_state_the_comparison():
    assert (
        compare_interval("x", 2.5, (2.0, 2.9), 3.0, good="below", n=9).reason == "x 2.500 [2.000, 2.900] < 3.000, n=9"
    )
    check = compare_interval("x", 0.1, (-0.1, 0.2), 0.0, good="below", n=9, paired=(2.6, 2.5), show="{:+.1f}".format)
    assert (check.value, check.baseline, check.interval) == (2.6, 2.5, (-0.1, 0.2))
    assert check.reason == "x +0.1 [-0.1, +0.2] straddles +0.0, n=9"
    doubt = compare_estimate("p", 3.5, (2.0, 5.0), 3.0, good="below", n=9, label="p 95", show="{:.0f} ms".format)
    assert doubt.reason == "p 95 4 ms > 3 ms (but the interval begins at 2 ms), n=9"
    assert compare_exact("x", 2.0, 3.0, good="above", n=9).reason == "x 2.000 < 3.000, n=9"
    assert compare_exact("x", math.nan, 3.0, good="above", n=9).reason == "x is NaN, bound 3.000, n=9"


def test_too_few_items_are_inconclusive_and_values_that_are_not_finite_fail():
    few = too_few("x", 2, 30, 3.0)
    assert (few.outcome, few.value, few.reason) == ("inconclusive", None, "x n=2 < 30 samples")
    assert too_few("x", 0, 0, 3.0, unit="requests").reason == "x n=0 < 1 requests"
    bad = not_finite("x", 1, 9, 3.0, label="champion's x")
    assert (bad.outcome, bad.value, bad.reason) == ("fail", None, "1 of 9 values of champion's x are NaN or infinite")


ORDER = ["pass", "inconclusive", "fail"]
finite = st.floats(-10, 10)


@given(st.sampled_from(list(COMPARISONS)), finite, finite, finite, finite, st.floats(0, 5))
def test_a_value_further_to_the_bad_side_never_fares_better(kind, value, left, right, bound, worse):
    ends = sorted((value - abs(left), value + abs(right)))
    compare = COMPARISONS[kind]
    for good, step in (("below", worse), ("above", -worse)):
        before = compare("x", value, tuple(ends), bound, good=good, n=9)
        after = compare("x", value + step, tuple(end + step for end in ends), bound, good=good, n=9)
        assert ORDER.index(after.outcome) >= ORDER.index(before.outcome)


@given(finite, finite, finite, finite)
def test_a_bound_below_mirrors_one_above(value, left, right, bound):
    low, high = value - abs(left), value + abs(right)
    for compare in COMPARISONS.values():
        here = compare("x", value, (low, high), bound, good="below", n=9)
        there = compare("x", -value, (-high, -low), -bound, good="above", n=9)
        assert here.outcome == there.outcome


def test_a_check_holds_no_nan_and_does_not_change():
    check = compare_interval("x", math.nan, (math.nan, math.inf), 3.0, good="below", n=9)
    assert (check.value, check.interval) == (None, (None, None))
    with pytest.raises(ValidationError):
        Check(metric="x", value=math.nan, bound=3.0, n=9, outcome="fail", reason="")
    with pytest.raises(ValidationError):
        check.outcome = "pass"
