"""The rollout loop: gives the challenger a rising share of the traffic, until it is promoted or a check fails.

`run_rollout` replays prompts through the live server, fetches its measurements, asks `sluice.serving.canary` for the
decision, and moves weights through `Releases`.
"""

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from sluice.core.progress import Progress, no_progress
from sluice.serving.canary import Arms, RolloutDecision, RolloutState, decide, smoke
from sluice.serving.config import RolloutConfig
from sluice.serving.measurements import Measurements
from sluice.serving.release import ReleaseState
from sluice.serving.releases import ReleaseRefused, Releases
from sluice.serving.routing import Arm, TrafficSource

POLL_S = 0.2


@dataclass(frozen=True)
class Completion:
    """One answered request, as the client saw it."""

    version: str
    """Version that answered."""
    arm: str
    status: int
    """HTTP status."""
    text: str
    first_token_ms: float
    per_token_ms: float
    total_ms: float
    fell_back: bool
    """The challenger failed and the champion answered in its place."""


class ServingClient(Protocol):
    """The server as a rollout uses it. Calls are bounded in time and raise if the server does not answer."""

    def complete(
        self, prompt: str, max_tokens: int, seed: int, source: TrafficSource = "replay", arm: Arm | None = None
    ) -> Completion:
        """Return one completion, routed by weight or pinned to an arm."""

    def measurements(self, version: str, since: float) -> Measurements:
        """Measure all attempts of `version` since `since` (epoch seconds), those hidden by a fallback included."""


class WallClock(Protocol):
    """Time as a rollout sees it; tests replace it."""

    def now(self) -> float:
        """Return seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class StepReport:
    """The end of one step."""

    weight: int
    requests: int
    """Challenger requests since the rollout began."""
    errors: int
    reason: str


@dataclass
class RolloutReport:
    """The end of a rollout."""

    version: str
    outcome: Literal["promoted", "dropped", "superseded"]
    reason: str
    steps: list[StepReport] = field(default_factory=list)
    replayed: int = 0
    unanswered: int = 0
    """Replayed requests whose status was not 200: failures that a user would have seen."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds per step."""


def run_rollout(
    releases: Releases,
    client: ServingClient,
    prompts: Sequence[str],
    config: RolloutConfig,
    *,
    clock: WallClock | None = None,
    progress: Progress = no_progress,
) -> RolloutReport:
    """Roll out the present challenger; promote it or drop it.

    Raises ValueError without a challenger or without prompts, and any error of the client. The challenger is dropped
    before an error leaves this function, so no rollout stays half done.
    """
    state = releases.state()
    if state.challenger is None:
        raise ValueError("there is no challenger to roll out: propose a version first")
    rollout = _Rollout(releases, client, prompts, config, state=state, clock=clock or SystemClock(), progress=progress)
    try:
        return rollout.run()
    except BaseException as error:
        # Also on an interrupt: live traffic must not stay on an unobserved version.
        if releases.state().challenger == state.challenger:
            releases.drop(f"rollout failed: {type(error).__name__}: {error}", version=state.challenger)
        elif isinstance(error, ReleaseRefused):
            return rollout.end("superseded", str(error))
        raise
    finally:
        rollout.close()


class _Rollout:
    """One rollout in progress: its replay requests and its report."""

    def __init__(
        self,
        releases: Releases,
        client: ServingClient,
        prompts: Sequence[str],
        config: RolloutConfig,
        *,
        state: ReleaseState,
        clock: WallClock,
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
            decision = RolloutDecision("wait", reason, state)
            while decision.action == "wait":
                self._replay(("challenger", "champion"))
                if self._releases.state().challenger != self._version:
                    return self.end("superseded", f"version {self._version} was removed from its rollout")
                arms = Arms(*(self._client.measurements(name, self._since) for name in (champion, self._version)))
                elapsed_s = self._clock.now() - started
                decision = decide(replace(decision.state, elapsed_s=elapsed_s), arms, self._config)
                self._report_progress(decision, arms.challenger)
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
        """Wait until a request to `arm` reaches the challenger; return the reason if none does within the timeout."""
        started, status = self._clock.now(), 0
        while self._clock.now() - started < self._config.step_timeout_s:
            answer = self._client.complete(self._prompts[0], 1, self._config.seed, arm=arm)
            # 503 means that no version is ready. Any other server error comes from a version that was tried.
            failed = answer.status >= 500 and answer.status != 503
            if answer.version == self._version or answer.fell_back or failed:
                return ""
            status = answer.status
            self._clock.sleep(POLL_S)
        limit = f"within {self._config.step_timeout_s:.0f} s, last status {status}"
        return f"the server did not {'serve' if arm else 'route traffic to'} version {self._version} {limit}"

    def _replay(self, pinned: tuple[Arm, ...], source: TrafficSource = "replay", most: int | None = None) -> None:
        """Keep requests in flight until `concurrency` of them have finished, or none has for POLL_S.

        Each prompt goes to every arm of `pinned`, in alternating order. So both arms answer the same prompts under the
        same load whatever the weight, and their latencies are comparable. Live requests, routed by weight, come on top.
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

    def _report_progress(self, decision: RolloutDecision, seen: Measurements) -> None:
        """Report challenger requests, at most `requests_per_step` of each step."""
        per_step, steps = self._config.requests_per_step, len(self._config.weights)
        step = min(decision.state.step, steps - 1)
        weight, done = self._config.weights[step], min(seen.requests - decision.state.requests_before, per_step)
        self._progress(step * per_step + done, steps * per_step, f"challenger at {weight} %: {decision.reason}")
