"""Intervals keep their level: parity with references, and coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from sluice.core.intervals import (
    Interval,
    paired_score_limit,
    percentile,
    quantile_interval,
    wilson_interval,
)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.6, 0.999))
def test_wilson_agrees_with_statsmodels(trial, confidence):
    successes, n = trial
    reference = proportion_confint(successes, n, 1 - confidence, "wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 30, 999])
@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.99])
def test_wilson_ends_exactly_at_0_and_1_and_is_everything_without_trials(n, confidence):
    assert wilson_interval(0, n, confidence).low == 0.0 < wilson_interval(0, n, confidence).high
    assert wilson_interval(n, n, confidence).high == 1.0 > wilson_interval(n, n, confidence).low
    assert wilson_interval(0, 0, confidence) == (0.0, 1.0)


@pytest.mark.parametrize("n", [30, 200])
def test_quantile_interval_covers_the_true_quantile(n):
    generator = np.random.default_rng(0)
    truth = -math.log(0.05)
    covered = 0
    for _ in range(500):
        _, (low, high) = quantile_interval(generator.exponential(size=n), 0.95, 0.95)
        covered += low <= truth <= high
    assert covered >= stats.binom.ppf(0.001, 500, 0.95)


def test_a_small_sample_has_no_upper_end_for_a_tail():
    estimate, (low, high) = quantile_interval(range(1, 31), 0.95, 0.95)
    assert (estimate, high) == (29.0, math.inf)
    assert low < 29


def test_a_quantile_may_be_infinite_and_may_not_be_of_nan():
    assert quantile_interval([1.0] * 80 + [math.inf] * 20, 0.95, 0.95)[0] == math.inf
    for values in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="a quantile needs values, none of them NaN"):
            quantile_interval(values, 0.95, 0.95)


def paired_limits(candidate_only, champion_only, n, confidence):
    z = stats.norm.ppf((1 + confidence) / 2)
    return Interval(*(paired_score_limit(candidate_only, champion_only, n, each) for each in (-z, z)))


def test_the_paired_limits_reproduce_the_published_example():
    # Tango (1998), crossover trial of contact lenses: 44 pairs, one discordant.
    assert paired_limits(0, 1, 44, 0.95) == pytest.approx((-0.118, 0.059), abs=5e-4)


def test_the_paired_limits_decide_as_the_mcnemar_score_test_at_no_difference():
    for candidate_only in range(15):
        for champion_only in range(15):
            low, high = paired_limits(candidate_only, champion_only, 40, 0.95)
            discordant = max(candidate_only + champion_only, 1)
            differs = (candidate_only - champion_only) ** 2 / discordant > stats.chi2.ppf(0.95, 1)
            assert (low > 0 or high < 0) == differs


def test_the_paired_limits_never_rise_when_the_candidate_loses_an_item():
    n = 14
    found = {(b, c): paired_limits(b, c, n, 0.98) for b in range(n + 1) for c in range(n + 1 - b)}
    for (b, c), interval in found.items():
        for worse in ((b - 1, c), (b, c + 1)):
            if worse in found:
                assert found[worse].low <= interval.low + 1e-12 and found[worse].high <= interval.high + 1e-12


def test_the_paired_limits_without_disagreement_still_differ():
    low, high = paired_limits(0, 0, 30, 0.95)
    assert low == pytest.approx(-high) and high > 0.1


def test_the_paired_limits_cover_the_true_difference():
    generator, trials, n = np.random.default_rng(0), 600, 80
    # Cells: both right, candidate only, champion only, neither. True difference -0.05.
    draws = generator.multinomial(n, [0.5, 0.10, 0.15, 0.25], size=trials)
    intervals = [paired_limits(int(b), int(c), n, 0.9) for _, b, c, _ in draws]
    covered = np.mean([low <= -0.05 <= high for low, high in intervals])
    assert 0.87 <= covered <= 0.94


def test_percentile_is_an_observed_sample():
    assert percentile(np.arange(1.0, 101.0), 0.95) == 95.0
    assert percentile(np.array([3.0]), 0.95) == 3.0
    assert math.isnan(percentile(np.array([]), 0.95))
