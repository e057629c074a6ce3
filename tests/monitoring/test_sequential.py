"""The e-processes keep their level over many looks, and still find what is broken."""

import math
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sluice.monitoring.sequential import ErrorRateTest


def first_rejection(rate: float, requests: int, generator: np.random.Generator, alpha: float = 0.05) -> int | None:
    """Looks after every request; a success never raises the e-value, so it is computed at failures alone."""
    test, before = ErrorRateTest(limit=0.02, alpha=alpha), 0
    for index in np.flatnonzero(generator.random(requests) < rate):
        test.update(1, int(index) + 1 - before)
        before = int(index) + 1
        if test.rejected:
            return before
    return None


@pytest.mark.parametrize("rate", [0.02, 0.01])
def test_at_the_limit_false_rejections_stay_below_alpha_over_thousands_of_looks(rate):
    generator = np.random.default_rng(0)
    alpha, runs = 0.05, 1000
    rejections = sum(first_rejection(rate, 3000, generator, alpha) is not None for _ in range(runs))
    # A test whose level is alpha would show more than this once in a thousand times.
    assert rejections <= stats.binom.ppf(0.999, runs, alpha)


@pytest.mark.parametrize(("rate", "most"), [(0.05, 300), (0.10, 80), (0.5, 10), (1.0, 3)])
def test_errors_above_the_limit_are_found(rate, most):
    generator = np.random.default_rng(1)
    found = [first_rejection(rate, 5000, generator) for _ in range(300)]
    assert None not in found
    assert median(found) <= most


def test_a_single_early_error_does_not_condemn():
    assert not ErrorRateTest(limit=0.02).update(1, 1).rejected


@given(
    counts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12),
    limit=st.floats(0.001, 0.9),
)
def test_the_evidence_depends_on_the_totals_alone(counts, limit):
    step_by_step, at_once = ErrorRateTest(limit), ErrorRateTest(limit)
    for errors, successes in counts:
        step_by_step.update(errors, errors + successes)
    at_once.update(sum(e for e, _ in counts), sum(e + s for e, s in counts))
    assert step_by_step.log_e_value == pytest.approx(at_once.log_e_value)
    # Looking oftener may reject where one look does not, never the other way round.
    assert step_by_step.rejected or not at_once.rejected


@given(errors=st.integers(0, 500), successes=st.integers(0, 500), limit=st.floats(0.005, 0.5))
@settings(max_examples=50)
def test_a_further_error_is_never_evidence_for_health(errors, successes, limit):
    requests = errors + successes
    before = ErrorRateTest(limit).update(errors, requests).log_e_value
    assert ErrorRateTest(limit).update(errors + 1, requests + 1).log_e_value >= before
    assert ErrorRateTest(limit).update(errors, requests + 1).log_e_value <= before


@given(rate=st.floats(0.0, 1.0), limit=st.floats(0.005, 0.6))
@settings(max_examples=50)
def test_the_expected_e_value_is_at_most_one_under_the_null(rate, limit):
    true_rate = rate * limit
    expected = sum(
        stats.binom.pmf(errors, 20, true_rate) * ErrorRateTest(limit).update(errors, 20).e_value for errors in range(21)
    )
    assert expected <= 1 + 1e-9


def test_millions_of_requests_stay_finite():
    healthy = ErrorRateTest(limit=0.02).update(100_000, 10_000_000)
    assert math.isfinite(healthy.log_e_value)
    assert not healthy.rejected
    broken = ErrorRateTest(limit=0.02).update(1_000_000, 10_000_000)
    assert broken.e_value == math.inf
    assert broken.rejected


def test_reasons_state_the_comparison():
    assert ErrorRateTest(0.02).reason().startswith("error rate unknown not shown above 2.0%")
    reason = ErrorRateTest(0.02).update(10, 40).reason()
    assert reason.startswith("error rate 25.0% shown above 2.0%: largest e-value ")
    assert reason.endswith(">= 20, n=40")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ErrorRateTest(0.0),
        lambda: ErrorRateTest(1.0),
        lambda: ErrorRateTest(0.02, alpha=0),
        lambda: ErrorRateTest(0.02).update(2, 1),
        lambda: ErrorRateTest(0.02).update(-1, 1),
    ],
)
def test_senseless_input_is_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()
