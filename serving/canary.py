"""The canary analysis: whether a challenger gets more traffic, is promoted or is dropped. Pure, without I/O.

`sluice.serving.rollout` sends the traffic and measures both arms. After every batch of answers it calls `decide` with
all measurements since the rollout began. Two checks decide, each at level alpha / 2:

- Error rate of the challenger. Passes if the observed rate is at most `max_error_rate`; fails only once an e-process
  (`sluice.monitoring.sequential`) has rejected "rate <= max_error_rate". It may be evaluated after every request.
- p95 latency of the challenger over the champion's. Passes if the observed ratio is at most `max_latency_ratio`; fails
  only if the lower end of its bootstrap interval exceeds that. Looking repeatedly would inflate the error, so look k
  spends 6 / (pi k)^2 of the level, which sums to 1 over any number of looks. A look is taken once the step has its
  requests, and again whenever the samples have doubled.

If both pass, the challenger goes on to the next weight, at last to promotion. If either fails, it is dropped. Otherwise
the rollout waits, and drops the challenger after `step_timeout_s`: no data is never a pass.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from sluice.core.check import Check, compare_estimate, compare_exact, too_few
from sluice.monitoring.sequential import ErrorRateTest
from sluice.serving.config import RolloutConfig
from sluice.serving.measurements import Measurements

RESAMPLES = 10_000
QUANTILE = 0.95


class Arms(NamedTuple):
    """Measurements of both arms over the same time."""

    champion: Measurements
    challenger: Measurements


@dataclass(frozen=True)
class RolloutState:
    """Progress of a rollout. Measurements are totals since it began."""

    step: int = 0
    """Index into `RolloutConfig.weights`."""
    elapsed_s: float = 0.0
    """Seconds since the step began."""
    requests_before: int = 0
    """Challenger requests before the step began."""
    looks: int = 0
    """Looks at the latency so far."""
    next_look: int = 0
    """Challenger samples at which the next look is due."""


@dataclass(frozen=True)
class RolloutDecision:
    """The next action, its reason, and the state to continue from."""

    action: Literal["advance", "wait", "promote", "abort"]
    reason: str
    state: RolloutState = RolloutState()


def decide(state: RolloutState, measurements: Arms, config: RolloutConfig) -> RolloutDecision:
    """Decide the next action from all measurements since the rollout began."""
    champion, challenger = measurements
    at_weight = f"challenger at {config.weights[state.step]} %"
    for name, arm in (("champion", champion), ("challenger", challenger)):
        if fault := implausible(arm):
            return RolloutDecision("abort", f"{name} at {config.weights[state.step]} %: {fault}", state)

    errors = check_errors(challenger, config)
    if errors.outcome == "fail":
        return RolloutDecision("abort", f"{at_weight}: {errors.reason}", state)
    in_step = challenger.requests - state.requests_before
    if in_step < config.requests_per_step:
        return _wait(state, config, f"{in_step} of {config.requests_per_step} challenger requests")
    if errors.outcome == "inconclusive":
        return _wait(state, config, errors.reason)

    samples, baseline = len(challenger.latencies_ms), len(champion.latencies_ms)
    needed = max(config.requests_per_step, state.next_look)
    if samples < needed or baseline < config.requests_per_step:
        have = f"latency of {samples} challenger and {baseline} champion answers"
        return _wait(state, config, f"{have}, {needed} needed")

    looks = state.looks + 1
    latency = check_latency(measurements, config, looks)
    looked = replace(state, looks=looks, next_look=2 * samples)
    if latency.outcome == "fail":
        return RolloutDecision("abort", f"{at_weight}: {latency.reason}", looked)
    if latency.outcome == "inconclusive":
        return _wait(looked, config, latency.reason)

    reason = f"{at_weight}: {errors.reason}; {latency.reason}"
    if state.step + 1 == len(config.weights):
        return RolloutDecision("promote", reason, looked)
    return RolloutDecision("advance", reason, RolloutState(state.step + 1, 0.0, challenger.requests, looks))


def _wait(state: RolloutState, config: RolloutConfig, unclear: str) -> RolloutDecision:
    """Wait for more measurements until the step's timeout, then abort."""
    if state.elapsed_s < config.step_timeout_s:
        return RolloutDecision("wait", unclear, state)
    waited = f"inconclusive after {state.elapsed_s:.0f} s >= {config.step_timeout_s:.0f} s"
    return RolloutDecision("abort", f"challenger at {config.weights[state.step]} %: {waited}: {unclear}", state)


def smoke(measurements: Measurements, config: RolloutConfig) -> RolloutDecision:
    """Decide on the first version, which has no champion to compare with: it must answer every smoke prompt."""
    if fault := implausible(measurements):
        return RolloutDecision("abort", f"smoke test: {fault}")
    requests = measurements.requests
    count = min(requests, len(measurements.latencies_ms))
    whole = "{:.0f}".format
    errors = compare_exact("errors", measurements.errors, 0, good="below", n=requests, show=whole)
    answers = compare_exact("answers", count, config.smoke_prompts, good="above", n=requests, show=whole)
    for check in (errors, answers):
        if not check.passed:
            return RolloutDecision("abort", f"smoke test: {check.reason}")
    return RolloutDecision("promote", f"smoke test: {errors.reason}; {answers.reason}")


def check_errors(arm: Measurements, config: RolloutConfig) -> Check:
    """Check the error rate: it fails only where the e-process has shown that the rate exceeds the bound."""
    bound = config.max_error_rate
    if not arm.requests:
        return too_few("error_rate", 0, 1, bound, unit="requests")
    test = ErrorRateTest(bound, config.alpha / 2).update(arm.errors, arm.requests)
    is_within = arm.errors <= bound * arm.requests
    rate, sign = arm.errors / arm.requests, "<=" if is_within else ">"
    return Check(
        metric="error_rate",
        value=rate,
        bound=bound,
        n=arm.requests,
        outcome="fail" if test.rejected else "pass" if is_within else "inconclusive",
        reason=test.reason() if test.rejected else f"error rate {rate:.1%} {sign} {bound:.1%}, n={arm.requests}",
    )


def check_latency(arms: Arms, config: RolloutConfig, looks: int) -> Check:
    """Check the latency ratio at look number `looks`, which spends its share of the level."""
    ratio = latency_ratio(arms, config.alpha / 2 * 6 / (math.pi * looks) ** 2, config.seed + looks)
    check = compare_estimate(
        "latency_ratio",
        ratio.point,
        (ratio.lower, ratio.upper),
        config.max_latency_ratio,
        good="below",
        n=ratio.n,
        label="p95 latency ratio",
        show="{:.2f}".format,
    )
    # The interval decides before the estimate: a bootstrap interval may lie beyond the bound without its estimate.
    outcome = "fail" if ratio.lower > config.max_latency_ratio else check.outcome
    reason = f"{check.reason}, interval [{ratio.lower:.2f}, {ratio.upper:.2f}]"
    return check.model_copy(update={"outcome": outcome, "reason": reason})


class LatencyRatio(NamedTuple):
    """p95 of the challenger over p95 of the champion, with its bootstrap interval."""

    point: float
    lower: float
    upper: float
    n: int
    """Samples of the challenger."""


def latency_ratio(arms: Arms, alpha: float, seed: int) -> LatencyRatio:
    """Return the ratio with its percentile bootstrap interval, each end at level `alpha`.

    The k-th smallest of n values drawn with replacement from n sorted values is the one at index floor(n B) with
    B ~ Beta(k, n - k + 1), so resamples of a quantile are drawn directly, without resampling the values.
    """
    generator = np.random.default_rng(seed)
    points, resamples = [], []
    for arm in arms:
        values = np.sort(np.asarray(arm.latencies_ms))
        n = len(values)
        k = math.ceil(QUANTILE * n)
        points.append(values[k - 1])
        drawn = np.floor(n * generator.beta(k, n - k + 1, RESAMPLES)).astype(int)
        resamples.append(values[np.minimum(drawn, n - 1)])
    lower, upper = np.quantile(resamples[1] / resamples[0], [alpha, 1 - alpha])
    return LatencyRatio(float(points[1] / points[0]), float(lower), float(upper), len(arms.challenger.latencies_ms))


def implausible(arm: Measurements) -> str:
    """Return the reason why these cannot be measurements; empty if they can."""
    if not 0 <= arm.errors <= arm.requests:
        return f"{arm.errors} errors in {arm.requests} requests are not a measurement"
    for value in arm.latencies_ms:
        if not (math.isfinite(value) and value > 0):
            return f"a latency of {value} ms per token is not a measurement"
    return ""
