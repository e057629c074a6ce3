"""The canary's decisions, and their error rates by simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sluice.serving.canary import Arms, RolloutDecision, RolloutState, decide, latency_ratio, smoke
from sluice.serving.config import RolloutConfig
from sluice.serving.measurements import Measurements

CONFIG = RolloutConfig()
LAST = RolloutState(step=len(CONFIG.weights) - 1)


def measured(requests: int, errors: int = 0, latency_ms: float = 20.0, version: str = "2") -> Measurements:
    """Latencies around `latency_ms`, p95 close to it."""
    answered = requests - errors
    return Measurements(
        version, requests, errors, [latency_ms * (1 + 0.001 * (index % 10)) for index in range(answered)]
    )


def arms(challenger: Measurements, champion: Measurements | None = None) -> Arms:
    return Arms(champion or measured(challenger.requests, version="1"), challenger)


def test_a_full_step_without_fault_advances_and_the_last_one_promotes() -> None:
    decision = decide(RolloutState(), arms(measured(30)), CONFIG)
    assert decision.action == "advance" and decision.state == RolloutState(1, 0.0, 30, 1)
    assert "error rate 0.0% <= 2.0%, n=30" in decision.reason
    assert "p95 latency ratio 1.00 <= 1.50, n=30, interval [" in decision.reason
    assert decide(LAST, arms(measured(30)), CONFIG).action == "promote"


def test_requests_of_earlier_steps_do_not_fill_a_step() -> None:
    state = RolloutState(1, 0.0, requests_before=30, looks=1)
    waiting = decide(state, arms(measured(59)), CONFIG)
    assert waiting.action == "wait" and waiting.reason == "29 of 30 challenger requests"
    assert decide(state, arms(measured(60)), CONFIG).action == "advance"


@pytest.mark.parametrize(
    ("challenger", "champion", "unclear"),
    [
        (measured(12), None, "12 of 30 challenger requests"),
        (measured(0), None, "0 of 30 challenger requests"),
        (measured(30), measured(0), "0 champion answers"),
        (measured(40, errors=1), None, "error rate 2.5% > 2.0%, n=40"),
    ],
    ids=["few", "none", "silent champion", "unclear errors"],
)
def test_what_stays_unclear_until_the_timeout_is_never_a_pass(
    challenger: Measurements, champion: Measurements | None, unclear: str
) -> None:
    for state in (RolloutState(), LAST):
        waiting = decide(replace(state, elapsed_s=119.0), arms(challenger, champion), CONFIG)
        assert waiting.action == "wait" and unclear in waiting.reason
        over = decide(replace(state, elapsed_s=120.0), arms(challenger, champion), CONFIG)
        assert over.action == "abort" and "inconclusive after 120 s" in over.reason and unclear in over.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize("arm", [0, 1])
def test_a_latency_that_is_no_number_aborts(value: float, arm: int) -> None:
    both = arms(measured(30))
    both[arm].latencies_ms[7] = value
    decision = decide(LAST, both, CONFIG)
    assert decision.action == "abort" and str(value) in decision.reason
    assert smoke(both[arm], CONFIG).action == "abort"


def test_counts_that_cannot_be_abort() -> None:
    assert decide(LAST, arms(Measurements("2", 5, 6, [])), CONFIG).action == "abort"


def test_errors_abort_at_once_within_a_few_requests() -> None:
    failing = next(
        n for n in range(100) if decide(RolloutState(), arms(measured(n, errors=n)), CONFIG).action == "abort"
    )
    assert failing <= 5
    decision = decide(RolloutState(), arms(measured(20, errors=6)), CONFIG)
    assert decision.action == "abort" and "30.0% shown above 2.0%" in decision.reason and "n=20" in decision.reason


def test_a_slow_challenger_aborts_and_the_reason_compares() -> None:
    decision = decide(RolloutState(), arms(measured(30, latency_ms=60.0)), CONFIG)
    assert decision.action == "abort"
    assert "p95 latency ratio 3.00 > 1.50, n=30, interval [3.00" in decision.reason


def test_an_unclear_latency_waits_for_twice_the_samples() -> None:
    generator = np.random.default_rng(0)
    noisy = [float(value) for value in 20 * generator.lognormal(0.0, 0.9, 31)]
    both = arms(Measurements("2", 31, 0, [1.6 * value for value in noisy]), Measurements("1", 31, 0, noisy))
    decision = decide(RolloutState(), both, CONFIG)
    assert decision.action == "wait" and "1.60 > 1.50 (but the interval begins at " in decision.reason
    assert (decision.state.looks, decision.state.next_look) == (1, 62)
    again = decide(decision.state, both, CONFIG)
    assert again.action == "wait" and again.state.looks == 1 and "62 needed" in again.reason


def test_later_looks_ask_for_more_certainty() -> None:
    generator = np.random.default_rng(1)
    both = Arms(*(Measurements(name, 60, 0, list(generator.lognormal(0, 0.5, 60))) for name in "12"))
    first, fourth = (latency_ratio(both, 0.025 * 6 / (math.pi * look) ** 2, seed=3) for look in (1, 4))
    assert fourth.lower < first.lower < first.point == fourth.point < first.upper < fourth.upper


def test_the_interval_is_the_bootstrap_of_the_quantile() -> None:
    """Against resampling in full."""
    generator = np.random.default_rng(2)
    samples = [generator.lognormal(0, 0.6, 80) for _ in range(2)]
    drawn = [np.sort(generator.choice(values, (20_000, 80)), axis=1)[:, 75] for values in samples]
    expected = np.quantile(drawn[1] / drawn[0], [0.05, 0.95])
    found = latency_ratio(Arms(*(Measurements("v", 80, 0, list(values)) for values in samples)), 0.05, seed=0)
    assert (found.lower, found.upper) == pytest.approx(tuple(expected), rel=0.02)


def test_smoke_wants_an_answer_to_every_prompt() -> None:
    assert smoke(measured(8), CONFIG).action == "promote"
    assert smoke(measured(7), CONFIG).action == "abort"
    assert smoke(measured(0), CONFIG).action == "abort"
    assert "errors 1 > 0, n=8" in smoke(measured(8, errors=1), CONFIG).reason


def simulate(
    generator: np.random.Generator, error_rate: float = 0.005, slowdown: float = 1.0
) -> tuple[RolloutDecision, Measurements]:
    """A whole rollout, measured after every two requests of each arm, at 50 ms a request. Heavy-tailed latencies."""
    seen = Arms(Measurements("1", 0, 0, []), Measurements("2", 0, 0, []))
    state, began = RolloutState(), 0
    while True:
        grown = []
        for arm, rate, factor in zip(seen, (0.005, error_rate), (1.0, slowdown), strict=True):
            failed = generator.random(2) < rate
            fresh = [factor * float(value) for value in 20 * generator.lognormal(0.0, 0.5, 2)]
            latencies = arm.latencies_ms + [value for value, bad in zip(fresh, failed, strict=True) if not bad]
            grown.append(Measurements(arm.version, arm.requests + 2, arm.errors + int(failed.sum()), latencies))
        seen = Arms(*grown)
        elapsed_s = 0.1 * (seen.challenger.requests - began)
        decision = decide(replace(state, elapsed_s=elapsed_s), seen, CONFIG)
        if decision.action in ("abort", "promote"):
            return decision, seen.challenger
        if decision.action == "advance":
            began = seen.challenger.requests
        state = decision.state


def test_identical_arms_are_aborted_less_often_than_alpha() -> None:
    generator = np.random.default_rng(7)
    aborted = [decision for decision, _ in (simulate(generator) for _ in range(200)) if decision.action == "abort"]
    assert len(aborted) <= CONFIG.alpha * 200, [decision.reason for decision in aborted]


def test_a_challenger_with_a_fifth_of_errors_is_aborted_within_few_requests() -> None:
    generator = np.random.default_rng(8)
    ended = [simulate(generator, error_rate=0.2) for _ in range(100)]
    assert all(decision.action == "abort" for decision, _ in ended)
    assert np.median([seen.requests for _, seen in ended]) <= 30


def test_a_challenger_three_times_as_slow_is_never_promoted() -> None:
    generator = np.random.default_rng(9)
    ended = [simulate(generator, slowdown=3.0) for _ in range(50)]
    assert all(decision.action == "abort" for decision, _ in ended)
    assert np.median([seen.requests for _, seen in ended]) <= 60
