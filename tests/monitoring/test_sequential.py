"""The e-processes keep their level over many looks, and still find what is broken."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sluice.monitoring.sequential import log_e_above, log_e_below, log_e_increase, log_e_uneven, threshold

ALPHA = 0.05
PARTS = st.integers(0, 100).map(lambda percent: percent / 100)
ERRORS, LIMIT = st.integers(0, 500), st.floats(0.005, 0.5)


def first_rejection(rate: float, requests: int, generator: np.random.Generator, limit: float = 0.02) -> int | None:
    """Looks after every request; a success never raises the evidence, so it is computed at failures alone."""
    for errors, index in enumerate(np.flatnonzero(generator.random(requests) < rate), 1):
        if log_e_above(errors, int(index) + 1, limit) >= threshold(ALPHA):
            return int(index) + 1
    return None


@pytest.mark.parametrize("rate", [0.02, 0.01])
def test_at_the_limit_false_rejections_stay_below_alpha_over_thousands_of_looks(rate: float) -> None:
    generator, runs = np.random.default_rng(0), 500
    rejections = sum(first_rejection(rate, 3000, generator) is not None for _ in range(runs))
    # A test whose level is alpha would show more than this once in a thousand times.
    assert rejections <= stats.binom.ppf(0.999, runs, ALPHA)


@pytest.mark.parametrize("rate", [0.03, 0.05])
def test_a_rate_above_the_unacceptable_is_rarely_shown_below_it(rate: float) -> None:
    generator, runs = np.random.default_rng(1), 300
    shown = 0
    for _ in range(runs):
        errors = (generator.random(1500) < rate).cumsum()
        shown += any(log_e_below(int(errors[n]), n + 1, 0.03) >= threshold(ALPHA) for n in range(60, 1500, 10))
    assert shown <= stats.binom.ppf(0.999, runs, ALPHA if rate == 0.03 else 0.01)


@pytest.mark.parametrize(("rate", "most"), [(0.05, 220), (0.10, 50), (0.5, 10), (1.0, 3)])
def test_errors_above_the_limit_are_found(rate: float, most: int) -> None:
    generator = np.random.default_rng(2)
    found = [first_rejection(rate, 5000, generator) for _ in range(300)]
    assert None not in found
    assert np.median([index for index in found if index]) <= most


def test_a_single_early_error_does_not_condemn() -> None:
    assert log_e_above(1, 1, 0.02) < threshold(ALPHA)


def test_a_faultless_version_is_shown_below_three_percent_within_115_requests() -> None:
    first = next(n for n in range(200) if log_e_below(0, n, 0.03) >= threshold(ALPHA))
    assert 98 < first <= 115  # a likelihood ratio of 0 against 3 % alone needs 99


@given(errors=ERRORS, successes=ERRORS, limit=LIMIT)
@settings(max_examples=50)
def test_a_further_error_is_never_evidence_for_health(errors: int, successes: int, limit: float) -> None:
    n, tolerance = errors + successes, 1e-9
    assert log_e_above(errors + 1, n + 1, limit) >= log_e_above(errors, n, limit) - tolerance
    assert log_e_above(errors, n + 1, limit) <= log_e_above(errors, n, limit) + tolerance
    assert log_e_below(errors + 1, n + 1, limit) <= log_e_below(errors, n, limit) + tolerance
    assert log_e_below(errors, n + 1, limit) >= log_e_below(errors, n, limit) - tolerance


@given(rate=PARTS, limit=st.floats(0.005, 0.6))
@settings(max_examples=50)
def test_the_expected_e_value_is_at_most_one_under_the_null(rate: float, limit: float) -> None:
    outcomes = range(21)
    low, high = rate * limit, limit + rate * (1 - limit)
    above = sum(stats.binom.pmf(bad, 20, low) * math.exp(log_e_above(bad, 20, limit)) for bad in outcomes)
    below = sum(stats.binom.pmf(bad, 20, high) * math.exp(log_e_below(bad, 20, limit)) for bad in outcomes)
    assert above <= 1 + 1e-9 and below <= 1 + 1e-9


@given(rate=PARTS, part=st.floats(0.01, 0.99))
@settings(max_examples=50)
def test_failures_split_as_the_traffic_or_better_have_an_expected_e_value_of_at_most_one(
    rate: float, part: float
) -> None:
    splits = [(first, 15 - first) for first in range(16)]
    expected = sum(
        stats.binom.pmf(first, 15, rate * part) * math.exp(log_e_uneven([(first, second, part)]))
        for first, second in splits
    )
    assert expected <= 1 + 1e-9


@given(second=st.floats(0.0, 0.5), bound=st.floats(0.0, 0.4), slack=st.floats(0.0, 1.0))
@settings(max_examples=50)
def test_an_increase_within_its_bound_has_an_expected_e_value_of_at_most_one(
    second: float, bound: float, slack: float
) -> None:
    """Per pair, as pairs are independent: the first alone is bad with the second's share, bound and slack."""
    for shown, first in (("above", (second + bound) * slack), ("below", min(1 - second, second + bound + slack))):
        stakes = [
            math.exp(log_e_increase(*pair, 1, bound, shown))  # type: ignore[arg-type]
            for pair in ((1, 0), (0, 1), (0, 0))
        ]
        is_null = first - second <= bound if shown == "above" else first - second >= bound
        assert not is_null or first * stakes[0] + second * stakes[1] + (1 - first - second) * stakes[2] <= 1 + 1e-9


def test_five_failures_of_one_arm_alone_are_uneven_and_as_many_of_both_are_not() -> None:
    assert log_e_uneven([(5, 0, 0.5)]) >= threshold(ALPHA) > log_e_uneven([(4, 0, 0.5)])
    assert log_e_uneven([(40, 40, 0.5)]) < 0
    # At 1 % of the traffic, two failures beside none of the champion are strange.
    assert log_e_uneven([(2, 0, 0.01)]) > threshold(ALPHA) > log_e_uneven([(1, 99, 0.01)])


def test_millions_of_requests_stay_finite() -> None:
    assert math.isfinite(log_e_above(100_000, 10_000_000, 0.02))
    assert log_e_above(1_000_000, 10_000_000, 0.02) > 1000 < log_e_below(100_000, 10_000_000, 0.02)


@pytest.mark.parametrize(
    "make",
    [
        lambda: log_e_above(1, 2, 0.0),
        lambda: log_e_below(1, 2, 1.0),
        lambda: log_e_above(2, 1, 0.02),
        lambda: log_e_below(-1, 1, 0.02),
        lambda: log_e_uneven([(1, 1, 1.0)]),
        lambda: log_e_uneven([(-1, 1, 0.5)]),
        lambda: log_e_increase(1, 1, 1, 0.01, "above"),
        lambda: log_e_increase(0, 0, 1, 1.0, "above"),
        lambda: threshold(0),
    ],
)
def test_senseless_input_is_refused(make) -> None:
    with pytest.raises(ValueError, match="must"):
        make()
