"""The verdict: no data is never ok, and worse data never gives a better outcome."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.core.check import Check
from sluice.monitoring.alerts import judge
from sluice.monitoring.config import MonitorConfig
from sluice.monitoring.drift import Drift
from sluice.monitoring.slo import error_rate_slo, finite_slo, latency_slo

CONFIG = MonitorConfig()
BETTER_TO_WORSE = ["ok", "alert", "rollback"]
OUTCOMES = ["pass", "inconclusive", "fail"]
COLUMNS = ["prompt_tokens", "completion_tokens", "first_token_ms", "finish_reason"]


def check(outcome: str) -> Check:
    return Check(metric="error_rate", value=0.1, bound=0.02, n=100, outcome=outcome, reason=f"check {outcome}")


def drift(name: str, outcome: str) -> Drift:
    return Drift(
        metric=name,
        test="ks",
        p_value=0.5,
        bound=0.01,
        n_reference=50,
        n=50,
        outcome=outcome,
        reason=f"{name} {outcome}",
    )


def drifts(outcomes: list[str], embedding: str = "pass") -> list[Drift]:
    return [drift("embedding", embedding), *(drift(name, each) for name, each in zip(COLUMNS, outcomes, strict=True))]


def test_all_well_is_ok_and_says_why():
    verdict = judge([check("pass")], drifts(["pass"] * 4), CONFIG)
    assert (verdict.outcome, verdict.reason) == ("ok", "check pass; drift in 0 of 5 tests")


def test_a_failed_objective_rolls_back_whatever_the_drift():
    verdict = judge([check("pass"), check("fail")], drifts(["fail"] * 4), CONFIG)
    assert (verdict.outcome, verdict.reason) == ("rollback", "check fail")


def test_drift_of_half_the_columns_alerts_and_of_fewer_does_not():
    assert judge([check("pass")], drifts(["fail", "pass", "pass", "pass"]), CONFIG).outcome == "ok"
    verdict = judge([check("pass")], drifts(["fail", "fail", "pass", "pass"]), CONFIG)
    assert verdict.outcome == "alert"
    assert verdict.reason == "drift in 2 of 4 columns >= 50% (prompt_tokens fail; completion_tokens fail)"


def test_drift_of_the_embedding_alerts_by_itself():
    verdict = judge([check("pass")], drifts(["pass"] * 4, embedding="fail"), CONFIG)
    assert (verdict.outcome, verdict.reason) == ("alert", "embedding fail")


def test_nan_in_one_column_alerts_by_itself():
    bad = Drift(metric="per_token_ms", test="ks", bound=0.01, n_reference=50, n=50, outcome="fail", reason="NaN")
    assert judge([check("pass")], [*drifts(["pass"] * 4), bad], CONFIG).outcome == "alert"


@pytest.mark.parametrize(
    ("checks", "tests"), [([], []), ([], drifts(["pass"] * 4)), ([check("pass")], []), ([check("inconclusive")], [])]
)
def test_nothing_measured_is_never_ok(checks, tests):
    assert judge(checks, tests, CONFIG).outcome == "alert"


levels = st.sampled_from(OUTCOMES)


@given(st.lists(levels, min_size=1, max_size=5), st.lists(levels, min_size=4, max_size=4), levels, st.data())
def test_a_worse_outcome_of_any_part_is_never_a_better_verdict(checks, columns, embedding, data):
    before = judge([check(each) for each in checks], drifts(columns, embedding), CONFIG)

    def worse(outcome: str) -> str:
        return OUTCOMES[data.draw(st.integers(OUTCOMES.index(outcome), 2))]

    after = judge(
        [check(worse(each)) for each in checks], drifts([worse(each) for each in columns], worse(embedding)), CONFIG
    )
    assert BETTER_TO_WORSE.index(after.outcome) >= BETTER_TO_WORSE.index(before.outcome)


def verdict_of(latencies_ms: list[float]) -> int:
    """Judge requests given by their latency, where an infinite one is a request that failed."""
    failed = sum(latency == float("inf") for latency in latencies_ms)
    checks = [
        error_rate_slo(failed, len(latencies_ms), CONFIG.max_error_rate, min_requests=30),
        latency_slo(latencies_ms, 300, min_requests=30),
    ]
    return BETTER_TO_WORSE.index(judge(checks, drifts(["pass"] * 4), CONFIG).outcome)


@given(st.lists(st.floats(1, 600) | st.just(float("inf")), min_size=0, max_size=120), st.data())
def test_requests_that_get_slower_or_fail_never_better_the_verdict(latencies_ms, data):
    worsened = list(latencies_ms)
    for index in data.draw(st.sets(st.integers(0, max(len(worsened) - 1, 0)), max_size=20)) if worsened else ():
        worsened[index] = data.draw(st.floats(worsened[index], float("inf")))
    assert verdict_of(worsened) >= verdict_of(latencies_ms)


@given(st.integers(0, 29))
def test_too_few_requests_are_never_ok(count):
    assert verdict_of([1.0] * count) == BETTER_TO_WORSE.index("alert")


def test_a_nan_is_a_rollback():
    nan = finite_slo([0.1] * 50 + [float("nan")], min_requests=30, name="mean_log_probability")
    assert judge([check("pass"), nan], drifts(["pass"] * 4), CONFIG).outcome == "rollback"
