"""Objectives: outcomes that follow from intervals, and burn rates over two windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.monitoring.slo import (
    burn_rate_slos,
    error_rate_slo,
    finite_slo,
    latency_slo,
)


@pytest.mark.parametrize(
    ("errors", "requests", "outcome"),
    [(0, 0, "inconclusive"), (29, 29, "inconclusive"), (0, 30, "pass"), (1, 30, "inconclusive"), (10, 30, "fail")],
)
def test_error_rate_outcomes(errors, requests, outcome):
    assert error_rate_slo(errors, requests, 0.02, min_requests=30).outcome == outcome


def test_reasons_state_the_comparison_with_n():
    assert error_rate_slo(10, 100, 0.02, min_requests=30).reason == "error rate 10.00% > 2.00%, n=100"
    latencies = np.full(1840, 412.0)
    check = latency_slo(latencies, 300, min_requests=30)
    assert (check.outcome, check.reason) == ("fail", "first_token_ms p95 412 ms > 300 ms, n=1840")
    assert latency_slo(latencies, 500, min_requests=30).reason == "first_token_ms p95 412 ms <= 500 ms, n=1840"


def test_latency_is_inconclusive_with_few_or_doubtful_values():
    assert latency_slo(np.full(29, 1.0), 300, min_requests=30).outcome == "inconclusive"
    doubtful = np.r_[np.full(92, 100.0), np.full(8, 400.0)]
    assert latency_slo(doubtful, 300, min_requests=30).outcome == "inconclusive"


def test_failed_requests_count_as_infinitely_slow():
    check = latency_slo(np.r_[np.full(80, 1.0), np.full(20, np.inf)], 300, min_requests=30)
    assert (check.outcome, check.value) == ("fail", None)
    assert check.reason == "first_token_ms p95 inf ms > 300 ms, n=100"


def test_one_nan_is_a_failure_whatever_the_rest():
    values = np.full(10, 1.0)
    values[3] = np.nan
    assert latency_slo(values, 300, min_requests=30).outcome == "fail"
    check = finite_slo(values, min_requests=30, name="mean_log_probability")
    assert (check.outcome, check.value) == ("fail", None)
    assert check.reason == "1 of 10 values of mean_log_probability are NaN or infinite"


def test_finite_numbers_pass_only_when_there_are_some():
    assert finite_slo([], min_requests=1, name="x").outcome == "inconclusive"
    assert finite_slo(np.zeros(30), min_requests=30, name="x").outcome == "pass"


@given(
    latencies=st.lists(st.floats(0, 1000), min_size=1, max_size=200),
    factor=st.floats(1, 50),
)
def test_slower_is_never_better(latencies, factor):
    order = ["pass", "inconclusive", "fail"]
    before = latency_slo(latencies, 300, min_requests=20).outcome
    after = latency_slo(np.multiply(latencies, factor), 300, min_requests=20).outcome
    assert order.index(after) >= order.index(before)


def burn(times, failed, budget=0.02):
    checks = burn_rate_slos(times, failed, now=100_000.0, budget=budget, min_requests=30)
    return {check.metric: check.outcome for check in checks}


def test_fast_burn_that_goes_on_fails_both_windows():
    times = np.linspace(100_000 - 21_000, 100_000, 2000)
    assert burn(times, np.arange(2000) % 2 == 0) == {"burn_rate_1h": "fail", "burn_rate_6h": "fail"}


def test_a_burn_that_is_over_does_not_fail():
    times = np.linspace(100_000 - 21_000, 100_000, 2000)
    recovered = (np.arange(2000) % 2 == 0) & (times < 100_000 - 1800)
    assert burn(times, recovered) == {"burn_rate_1h": "pass", "burn_rate_6h": "pass"}


def test_slow_burn_is_seen_by_the_long_window_alone():
    times = np.linspace(100_000 - 21_000, 100_000, 2000)
    assert burn(times, np.arange(2000) % 5 == 0) == {"burn_rate_1h": "pass", "burn_rate_6h": "fail"}


def test_a_quiet_hour_gives_no_check_and_neither_does_a_burn_rate_out_of_reach():
    times = np.linspace(100_000 - 21_000, 100_000 - 5000, 500)
    assert burn(times, np.zeros(500)) == {"burn_rate_6h": "pass"}
    assert burn(np.full(100, 100_000.0), np.ones(100), budget=0.2) == {}


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="error budget 0 must lie between 0 and 1"):
        burn([], [], budget=0)
