"""The canary: a challenger takes more and more of the traffic, for as long as nothing speaks against it.

`decide` and `smoke` are pure; `run_rollout` replays prompts against the live server, asks it what it measured, and
moves weights through `Releases`. Two things are judged, each at half of alpha. The challenger's error rate, by an
e-process (sluice.monitoring.sequential), which may be looked at after every request; the ratio of the two arms' p95
latency a token, by a bootstrap interval, which may not: so look k, taken when a step is full or the samples have
doubled since the last, spends 6 / (pi k)^2 of its half, which sums to 1 over any number of looks.

No data is never a pass: what stays unclear until the step's timeout drops the challenger.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np

from sluice.core.progress import Progress, no_progress
from sluice.monitoring.sequential import ErrorRateTest
from sluice.serving.config import RolloutConfig
from sluice.serving.measurements import Measurements
from sluice.serving.release import ReleaseState
from sluice.serving.releases import ReleaseRefused, Releases
from sluice.serving.routing import Arm, Source

POLL_S = 0.2
RESAMPLES = 10_000
QUANTILE = 0.95


@dataclass(frozen=True)
class Completion:
    """One answered request, as the client saw it."""

    version: str
    """Version that wrote the answer."""
    arm: str
    status: int
    """HTTP status."""
    text: str
    first_token_ms: float
    per_token_ms: float
    total_ms: float
    fell_back: bool
    """The challenger was tried and failed, and the champion answered in its place."""


class Arms(NamedTuple):
    """Both arms over the same time."""

    champion: Measurements
    challenger: Measurements


class ServingClient(Protocol):
    """What a rollout needs of the server. Calls raise when the server does not answer, and are bounded in time."""

    def complete(
        self, prompt: str, max_tokens: int, seed: int, source: Source = "replay", arm: Arm | None = None
    ) -> Completion:
        """One completion, routed by weight or pinned to an arm."""

    def measurements(self, version: str, since: float) -> Measurements:
        """Of all requests that `version` was tried for since `since` (epoch seconds), hidden failures included."""


class Clock(Protocol):
    """Where a rollout has its time from."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class RolloutState:
    """How far a rollout is. Measurements are totals since it began."""

    step: int = 0
    """Index into config.weights."""
    elapsed_s: float = 0.0
    """Since the step began."""
    requests_before: int = 0
    """Challenger requests before the step began."""
    looks: int = 0
    """Looks at the latency so far."""
    next_look: int = 0
    """Challenger samples from which on the next look is due."""


@dataclass(frozen=True)
class Decision:
    """What to do, why, and the state to go on from."""

    action: Literal["advance", "wait", "promote", "abort"]
    reason: str
    state: RolloutState = RolloutState()


@dataclass(frozen=True)
class LatencyRatio:
    """p95 of the challenger over p95 of the champion, with its bootstrap interval."""

    point: float
    lower: float
    upper: float
    n: int
    """Samples of the challenger."""

    def __str__(self) -> str:
        return f"p95 latency ratio {self.point:.2f} [{self.lower:.2f}, {self.upper:.2f}], n={self.n}"


def latency_ratio(arms: Arms, alpha: float, seed: int) -> LatencyRatio:
    """The ratio with its percentile bootstrap interval, each end at level `alpha`.

    The k-th smallest of n values drawn with replacement from n sorted values is the one at index floor(n B) with
    B ~ Beta(k, n - k + 1), so resamples of a quantile are drawn directly, without resampling.
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


def decide(state: RolloutState, measurements: Arms, config: RolloutConfig) -> Decision:
    """What the measurements since the rollout began allow. Pure."""
    weight = config.weights[state.step]
    for name, arm in zip(("champion", "challenger"), measurements, strict=True):
        if fault := _implausible(arm):
            return Decision("abort", f"{name} at {weight} %: {fault}", state)
    challenger = measurements.challenger
    errors = ErrorRateTest(config.max_error_rate, config.alpha / 2).update(challenger.errors, challenger.requests)
    if errors.rejected:
        return Decision("abort", f"challenger at {weight} %: {errors.reason()}", state)
    in_step = challenger.requests - state.requests_before
    samples = len(challenger.latencies_ms)
    needed = max(config.requests_per_step, state.next_look)
    if in_step < config.requests_per_step:
        unclear = f"{in_step} of {config.requests_per_step} challenger requests"
    elif challenger.errors > config.max_error_rate * challenger.requests:
        rate = challenger.errors / challenger.requests
        unclear = f"error rate {rate:.1%} > {config.max_error_rate:.1%}, n={challenger.requests}"
    elif min(samples, len(measurements.champion.latencies_ms)) < config.requests_per_step or samples < needed:
        unclear = f"latency of {samples} challenger and {len(measurements.champion.latencies_ms)} champion answers, "
        unclear += f"{needed} needed"
    else:
        return _look(state, measurements, config)
    return _wait(state, config, unclear)


def _look(state: RolloutState, measurements: Arms, config: RolloutConfig) -> Decision:
    """Spend one look at the latency, in a step that has everything else."""
    challenger, weight = measurements.challenger, config.weights[state.step]
    looks, bound = state.looks + 1, config.max_latency_ratio
    ratio = latency_ratio(measurements, config.alpha / 2 * 6 / (math.pi * looks) ** 2, config.seed + looks)
    looked = replace(state, looks=looks, next_look=2 * ratio.n)
    if ratio.lower > bound:
        return Decision("abort", f"challenger at {weight} %: {ratio}: lower end > {bound:g}", looked)
    if ratio.point > bound:
        return _wait(looked, config, f"{ratio}: > {bound:g}, but not shown")
    reason = (
        f"challenger at {weight} %: {challenger.errors} errors in {challenger.requests} requests "
        f"<= {config.max_error_rate:.1%}; {ratio}: <= {bound:g}"
    )
    if state.step + 1 == len(config.weights):
        return Decision("promote", reason, looked)
    return Decision("advance", reason, RolloutState(state.step + 1, 0.0, challenger.requests, looks))


def _wait(state: RolloutState, config: RolloutConfig, unclear: str) -> Decision:
    if state.elapsed_s < config.step_timeout_s:
        return Decision("wait", unclear, state)
    waited = f"inconclusive after {state.elapsed_s:.0f} s >= {config.step_timeout_s:.0f} s"
    return Decision("abort", f"challenger at {config.weights[state.step]} %: {waited}: {unclear}", state)


def _implausible(arm: Measurements) -> str:
    """What makes these measurements no measurements; empty if nothing."""
    if not 0 <= arm.errors <= arm.requests:
        return f"{arm.errors} errors in {arm.requests} requests are no measurement"
    for value in arm.latencies_ms:
        if not (math.isfinite(value) and value > 0):
            return f"latency {value} ms a token is no measurement"
    return ""


def smoke(measurements: Measurements, config: RolloutConfig) -> Decision:
    """The first version has no champion to be compared with: it must answer every smoke prompt. Pure."""
    if fault := _implausible(measurements):
        return Decision("abort", f"smoke test: {fault}")
    requests, errors = measurements.requests, measurements.errors
    if errors:
        return Decision("abort", f"smoke test: {errors} errors > 0, n={requests}")
    if min(requests, len(measurements.latencies_ms)) < config.smoke_prompts:
        return Decision("abort", f"smoke test: {requests} of {config.smoke_prompts} prompts answered")
    return Decision("promote", f"smoke test: 0 errors, n={requests} >= {config.smoke_prompts}")


@dataclass(frozen=True)
class StepReport:
    """One step as it ended."""

    weight: int
    requests: int
    """Challenger requests since the rollout began."""
    errors: int
    reason: str


@dataclass
class RolloutReport:
    """How a rollout ended."""

    version: str
    outcome: Literal["promoted", "dropped", "superseded"]
    reason: str
    steps: list[StepReport] = field(default_factory=list)
    replayed: int = 0
    unanswered: int = 0
    """Replayed requests that came back with another status than 200: what a user would have seen fail."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by step."""


def run_rollout(
    releases: Releases,
    client: ServingClient,
    prompts: Sequence[str],
    config: RolloutConfig,
    *,
    clock: Clock | None = None,
    progress: Progress = no_progress,
) -> RolloutReport:
    """Roll the present challenger out; promote it or drop it.

    Raises ValueError without a challenger or without prompts, and whatever the client raises; the challenger is dropped
    first, so no way out of here leaves a rollout half done.
    """
    state = releases.state()
    if state.challenger is None:
        raise ValueError("there is no challenger to roll out: propose a version first")
    rollout = _Rollout(releases, client, prompts, config, state=state, clock=clock or SystemClock(), progress=progress)
    try:
        return rollout.run()
    except BaseException as error:
        # Also for an interrupt: live traffic must not stay on a version that nobody watches.
        if releases.state().challenger == state.challenger:
            releases.drop(f"rollout failed: {type(error).__name__}: {error}", version=state.challenger)
        elif isinstance(error, ReleaseRefused):
            return rollout.end("superseded", str(error))
        raise
    finally:
        rollout.close()


class _Rollout:
    """One rollout under way: the replay, and what it has seen so far."""

    def __init__(
        self,
        releases: Releases,
        client: ServingClient,
        prompts: Sequence[str],
        config: RolloutConfig,
        *,
        state: ReleaseState,
        clock: Clock,
        progress: Progress,
    ) -> None:
        assert state.challenger is not None
        self._releases, self._client, self._config = releases, client, config
        self._prompts, self._clock, self._progress = prompts, clock, progress
        self._version, self._champion = state.challenger, state.champion
        self._report = RolloutReport(self._version, "dropped", "")
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="replay")
        self._in_flight: set[Future[Completion]] = set()
        self._submitted = 0
        self._since = 0.0

    def run(self) -> RolloutReport:
        if not self._prompts:
            raise ValueError("there are no prompts to replay: a rollout without requests measures nothing")
        started = self._clock.now()
        fault = self._await_served("challenger")
        self._report.timings["await_s"] = self._clock.now() - started
        if fault:
            return self._drop(fault)
        self._since = self._clock.now()
        return self._smoke() if self._champion is None else self._canary(self._champion)

    def end(self, outcome: Literal["promoted", "dropped", "superseded"], reason: str) -> RolloutReport:
        self._report.outcome, self._report.reason = outcome, reason
        return self._report

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _canary(self, champion: str) -> RolloutReport:
        state, reason = RolloutState(), "first step"
        while True:
            weight = self._config.weights[state.step]
            self._releases.set_weight(weight, reason, version=self._version)
            if weight == 100 and (fault := self._await_served(None)):
                return self._drop(fault)
            started = self._clock.now()
            decision = Decision("wait", reason, state)
            while decision.action == "wait":
                self._replay(("challenger", "champion"))
                if self._releases.state().challenger != self._version:
                    return self.end("superseded", f"version {self._version} was taken out of its rollout")
                arms = Arms(*(self._client.measurements(name, self._since) for name in (champion, self._version)))
                elapsed_s = self._clock.now() - started
                decision = decide(replace(decision.state, elapsed_s=elapsed_s), arms, self._config)
                self._tell(decision, arms.challenger)
            self._report.timings[f"step_{weight}_s"] = elapsed_s
            seen = arms.challenger
            self._report.steps.append(StepReport(weight, seen.requests, seen.errors, decision.reason))
            if decision.action == "abort":
                return self._drop(decision.reason)
            if decision.action == "promote":
                return self._promote(decision.reason)
            state, reason = decision.state, decision.reason

    def _smoke(self) -> RolloutReport:
        started, wanted = self._clock.now(), self._config.smoke_prompts
        seen = Measurements(self._version, 0, 0, [])
        while min(seen.requests, self._report.replayed) < wanted:
            if self._clock.now() - started >= self._config.step_timeout_s:
                break
            self._replay(("challenger",), "smoke", most=wanted)
            seen = self._client.measurements(self._version, self._since)
            self._progress(min(seen.requests, wanted), wanted, "smoke test")
        decision = smoke(seen, self._config)
        self._report.steps.append(StepReport(0, seen.requests, seen.errors, decision.reason))
        self._report.timings["smoke_s"] = self._clock.now() - started
        return self._promote(decision.reason) if decision.action == "promote" else self._drop(decision.reason)

    def _promote(self, reason: str) -> RolloutReport:
        self._releases.promote(reason, version=self._version)
        return self.end("promoted", reason)

    def _drop(self, reason: str) -> RolloutReport:
        self._releases.drop(reason, version=self._version)
        return self.end("dropped", reason)

    def _await_served(self, arm: Arm | None) -> str:
        """Waits until the challenger is tried for a request to `arm`; what went wrong if it never is."""
        started, status = self._clock.now(), 0
        while self._clock.now() - started < self._config.step_timeout_s:
            answer = self._client.complete(self._prompts[0], 1, self._config.seed, arm=arm)
            # 503 says that nobody is ready; another failure is one of a version that was tried.
            failed = answer.status >= 500 and answer.status != 503
            if answer.version == self._version or answer.fell_back or failed:
                return ""
            status = answer.status
            self._clock.sleep(POLL_S)
        limit = f"within {self._config.step_timeout_s:.0f} s, last status {status}"
        return f"the server did not {'serve' if arm else 'route traffic to'} version {self._version} {limit}"

    def _replay(self, pinned: tuple[Arm, ...], source: Source = "replay", most: int | None = None) -> None:
        """Keeps requests in flight until `concurrency` of them came back, or none did for POLL_S.

        Each prompt goes to every arm of `pinned`, in alternating order: both arms then answer the same prompts under
        the same load, whatever the weight, and their latencies compare. Live requests come on top, routed by weight.
        """
        finished = 0
        while finished < self._config.concurrency:
            while len(self._in_flight) < self._config.concurrency and (most is None or self._submitted < most):
                turn, position = divmod(self._submitted, len(pinned))
                prompt, arm = self._prompts[turn % len(self._prompts)], pinned[position - turn % 2]
                call = (prompt, self._config.max_tokens, self._config.seed + turn, source, arm)
                self._in_flight.add(self._pool.submit(self._client.complete, *call))
                self._submitted += 1
            done, self._in_flight = wait(self._in_flight, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if not done:
                self._clock.sleep(POLL_S)
                return
            for answer in done:
                self._report.replayed += 1
                self._report.unanswered += answer.result().status != 200
            finished += len(done)

    def _tell(self, decision: Decision, seen: Measurements) -> None:
        """Progress in challenger requests; a step that waits for clarity stands still."""
        per_step, steps = self._config.requests_per_step, len(self._config.weights)
        step = min(decision.state.step, steps - 1)
        weight, done = self._config.weights[step], min(seen.requests - decision.state.requests_before, per_step)
        self._progress(step * per_step + done, steps * per_step, f"challenger at {weight} %: {decision.reason}")
