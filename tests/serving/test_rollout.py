"""The rollout: its decisions, their error rates by simulation, and the driver against a peer with injected faults."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from release_fixtures import Workspace, empty_database, released, released_template, workspace  # noqa: F401

from sluice.serving.config import RolloutConfig
from sluice.serving.measurements import Measurements
from sluice.serving.release import ReleaseState
from sluice.serving.rollout import (
    Arms,
    Completion,
    Decision,
    RolloutReport,
    RolloutState,
    decide,
    latency_ratio,
    run_rollout,
    smoke,
)
from sluice.serving.routing import Arm, Source

CONFIG = RolloutConfig()
PROMPTS = [f"prompt {number}" for number in range(7)]
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
    assert "0 errors in 30 requests <= 2.0%" in decision.reason and "1.00 [" in decision.reason
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
    assert "p95 latency ratio 3.00" in decision.reason and "lower end > 1.5" in decision.reason


def test_an_unclear_latency_waits_for_twice_the_samples() -> None:
    generator = np.random.default_rng(0)
    noisy = [float(value) for value in 20 * generator.lognormal(0.0, 0.9, 31)]
    both = arms(Measurements("2", 31, 0, [1.6 * value for value in noisy]), Measurements("1", 31, 0, noisy))
    decision = decide(RolloutState(), both, CONFIG)
    assert decision.action == "wait" and "1.60" in decision.reason and "not shown" in decision.reason
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
    assert "1 errors > 0, n=8" in smoke(measured(8, errors=1), CONFIG).reason


def simulate(
    generator: np.random.Generator, error_rate: float = 0.005, slowdown: float = 1.0
) -> tuple[Decision, Measurements]:
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


@dataclass
class FakeClock:
    """Time that passes when somebody works or sleeps."""

    time_s: float = 5000.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.time_s += seconds


@dataclass
class Peer:
    """A server in memory behind the client's protocol; it follows the release state as the real one does."""

    state: Callable[[], ReleaseState]
    clock: FakeClock
    is_error: Callable[[int], bool] = lambda number: False
    """Whether the challenger fails on its number-th request."""
    latency_ms: float = 20.0
    """Of the challenger; the champion has 20 ms a token."""
    loading_polls: int = 2
    """Requests until the challenger is loaded."""
    dies_after: int | None = None
    """Requests after which the server is gone."""
    routes_weights: bool = True
    is_silent: bool = False
    """Answers, but measures nothing of the challenger."""
    on_request: Callable[[int], None] = lambda number: None
    calls: list[tuple[str, Arm | None, Source]] = field(default_factory=list)
    samples: list[tuple[str, float, bool, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(
        self, prompt: str, max_tokens: int, seed: int, source: Source = "replay", arm: Arm | None = None
    ) -> Completion:
        with self.lock:
            self.calls.append((prompt, arm, source))
            number = len(self.calls)
        self.on_request(number)
        if self.dies_after is not None and number > self.dies_after:
            raise ConnectionError("connection refused")
        with self.lock:
            answer = self._answer(self.state(), arm, number)
            self.clock.sleep(0.05)
            return answer

    def _answer(self, state: ReleaseState, arm: Arm | None, number: int) -> Completion:
        wanted = arm or ("challenger" if number % 100 < state.challenger_weight and self.routes_weights else "champion")
        if wanted == "challenger" and (number <= self.loading_polls or state.challenger is None):
            return Completion("", wanted, 503, "", 0.0, 0.0, 0.0, False)
        if wanted == "challenger":
            assert state.challenger is not None
            failed = self.is_error(number)
            self.samples.append((state.challenger, self.clock.now(), failed, self.latency_ms))
            if not failed:
                return self._completion(state.challenger, "challenger", self.latency_ms)
        if state.champion is None:
            return Completion("", wanted, 500, "", 0.0, 0.0, 0.0, False)
        self.samples.append((state.champion, self.clock.now(), False, 20.0))
        return self._completion(state.champion, "champion", 20.0, fell_back=wanted == "challenger")

    def _completion(self, version: str, arm: str, latency_ms: float, fell_back: bool = False) -> Completion:
        return Completion(version, arm, 200, "text", latency_ms, latency_ms, 10 * latency_ms, fell_back)

    def measurements(self, version: str, since: float) -> Measurements:
        with self.lock:
            found = [sample for sample in self.samples if sample[0] == version and sample[1] >= since]
        if self.is_silent and version == self.state().challenger:
            found = []
        latencies = [latency_ms for _, _, failed, latency_ms in found if not failed]
        return Measurements(version, len(found), sum(failed for _, _, failed, _ in found), latencies)


@dataclass
class Stage:
    """A workspace with a challenger, and the time that its rollout lives in."""

    workspace: Workspace
    clock: FakeClock = field(default_factory=FakeClock)
    notes: list[tuple[int, int, str]] = field(default_factory=list)

    def peer(self, **faults: object) -> Peer:
        return Peer(self.workspace.releases.state, self.clock, **faults)  # type: ignore[arg-type]

    def run(self, peer: Peer, prompts: list[str] = PROMPTS, config: RolloutConfig = CONFIG) -> RolloutReport:
        self.workspace.time_s = self.clock.now()
        releases = self.workspace.releases
        return run_rollout(
            releases, peer, prompts, config, clock=self.clock, progress=lambda *told: self.notes.append(told)
        )

    @property
    def actions(self) -> list[tuple[str, str]]:
        """What the ledger says of the challenger."""
        return [(entry.action, entry.version) for entry in self.workspace.releases.history() if entry.version == "3"]

    def assert_dropped(self, reason: str) -> None:
        last = self.workspace.releases.history()[-1]
        assert (last.action, last.version) == ("drop", "3") and reason in last.reason
        assert self.workspace.aliases() == {"previous-champion": "1", "champion": "2", "challenger": None}


@pytest.fixture
def stage(released: Workspace) -> Stage:
    """Version 2 is champion, version 3 challenger."""
    released.propose("3")
    return Stage(released)


def test_a_good_challenger_rises_step_by_step_and_becomes_champion(stage: Stage) -> None:
    peer = stage.peer()
    report = stage.run(peer)
    assert report.outcome == "promoted" and report.version == "3" and report.unanswered == 0
    assert [step.weight for step in report.steps] == [10, 50, 100]
    assert stage.actions == [("propose", "3"), *[("weight", "3")] * 3, ("promote", "3")]
    entries = stage.workspace.releases.history()
    assert [entry.details["percent"] for entry in entries if entry.action == "weight"] == [10, 50, 100]
    assert "0 errors in" in entries[-1].reason
    assert stage.workspace.aliases() == {"previous-champion": "2", "champion": "3", "challenger": None}
    assert set(report.timings) == {"await_s", "step_10_s", "step_50_s", "step_100_s"}


def test_both_arms_answer_the_same_prompts(stage: Stage) -> None:
    peer = stage.peer(loading_polls=0)
    stage.run(peer)
    pinned = [call for call in peer.calls[1:] if call[1] is not None]
    asked = {arm: sorted(prompt for prompt, called, _ in pinned if called == arm) for arm in ("champion", "challenger")}
    assert abs(len(asked["champion"]) - len(asked["challenger"])) <= 1
    assert set(asked["champion"]) == set(asked["challenger"]) == set(PROMPTS)
    assert {source for _, _, source in pinned} == {"replay"}
    done = [done for done, _, _ in stage.notes]
    assert done == sorted(done) and done[-1] == stage.notes[-1][1] == 90


def test_errors_hidden_by_the_fallback_drop_the_challenger(stage: Stage) -> None:
    report = stage.run(stage.peer(is_error=lambda number: True))
    assert report.outcome == "dropped" and report.unanswered == 0 and report.replayed <= 20
    stage.assert_dropped("shown above 2.0%")
    assert report.reason == stage.workspace.releases.history()[-1].reason


def test_errors_that_begin_in_a_later_step_drop_the_challenger(stage: Stage) -> None:
    report = stage.run(stage.peer(is_error=lambda number: number > 100))
    assert report.outcome == "dropped" and [step.weight for step in report.steps] == [10, 50]
    stage.assert_dropped("challenger at 50 %: error rate")


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"latency_ms": 100.0}, "p95 latency ratio 5.00"),
        ({"latency_ms": math.nan}, "latency nan ms a token"),
        ({"is_silent": True}, "inconclusive after 20 s >= 20 s: 0 of 30 challenger requests"),
        ({"loading_polls": 10**9}, "did not serve version 3 within 20 s, last status 503"),
        ({"routes_weights": False}, "did not route traffic to version 3 within 20 s"),
    ],
    ids=["slow", "nan", "silent", "never loaded", "weights ignored"],
)
def test_a_fault_drops_the_challenger_with_its_reason(stage: Stage, faults: dict[str, object], reason: str) -> None:
    report = stage.run(stage.peer(**faults), config=CONFIG.model_copy(update={"step_timeout_s": 20.0}))
    assert report.outcome == "dropped" and reason in report.reason
    stage.assert_dropped(reason)


@pytest.mark.parametrize("dies_after", [0, 1, 30, 150])
def test_a_server_that_dies_drops_the_challenger_and_is_reported(stage: Stage, dies_after: int) -> None:
    with pytest.raises(ConnectionError, match="refused"):
        stage.run(stage.peer(dies_after=dies_after))
    stage.assert_dropped("rollout failed: ConnectionError: connection refused")


def test_an_interrupt_leaves_no_half_rollout(stage: Stage) -> None:
    peer = stage.peer()

    def interrupt(done: int, total: int, note: str) -> None:
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rollout(stage.workspace.releases, peer, PROMPTS, CONFIG, clock=stage.clock, progress=interrupt)
    stage.assert_dropped("KeyboardInterrupt")


def test_a_client_that_hangs_is_a_bounded_wait(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.serving.rollout.POLL_S", 0.01)
    config, freed = CONFIG.model_copy(update={"step_timeout_s": 0.5}), threading.Event()
    peer = stage.peer(on_request=lambda number: number > 10 and freed.wait(60))
    report = stage.run(peer, config=config)
    freed.set()
    assert report.outcome == "dropped"
    stage.assert_dropped("inconclusive")


@pytest.mark.parametrize("interference", ["drop", "rollback"])
def test_somebody_else_ending_the_rollout_is_accepted(stage: Stage, interference: str) -> None:
    def interfere(number: int) -> None:
        if number == 50:
            getattr(stage.workspace.releases, interference)("by hand")

    report = stage.run(stage.peer(on_request=interfere))
    assert report.outcome == "superseded" and report.version == "3"
    assert stage.workspace.releases.history()[-1].reason == "by hand"


def test_the_first_version_is_promoted_after_smoke_tests(workspace: Workspace) -> None:
    workspace.propose(workspace.register("one"))
    stage = Stage(workspace)
    peer = stage.peer()
    report = stage.run(peer)
    assert report.outcome == "promoted" and report.replayed == CONFIG.smoke_prompts
    assert [call[1:] for call in peer.calls[-CONFIG.smoke_prompts :]] == [
        ("challenger", "smoke")
    ] * CONFIG.smoke_prompts
    assert workspace.aliases() == {"previous-champion": None, "champion": "1", "challenger": None}
    assert [entry.action for entry in workspace.releases.history()] == ["propose", "promote"]


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"is_error": lambda number: number == 6}, "smoke test: 1 errors > 0, n=8"),
        ({"is_error": lambda number: True}, "smoke test: 8 errors > 0, n=8"),
        ({"latency_ms": math.nan}, "latency nan"),
        ({"is_silent": True}, "smoke test: 0 of 8 prompts answered"),
    ],
    ids=["one error", "errors alone", "nan", "silent"],
)
def test_a_first_version_that_fails_its_smoke_test_is_dropped(
    workspace: Workspace, faults: dict[str, object], reason: str
) -> None:
    workspace.propose(workspace.register("one"))
    stage = Stage(workspace)
    report = stage.run(stage.peer(**faults), config=CONFIG.model_copy(update={"step_timeout_s": 20.0}))
    assert report.outcome == "dropped" and reason in report.reason
    assert workspace.aliases() == {"previous-champion": None, "champion": None, "challenger": None}


def test_nothing_to_roll_out_and_nothing_to_replay_are_said(stage: Stage) -> None:
    with pytest.raises(ValueError, match="no prompts"):
        stage.run(stage.peer(), prompts=[])
    stage.assert_dropped("no prompts")
    with pytest.raises(ValueError, match="no challenger"):
        stage.run(stage.peer())


def test_a_promotion_that_is_refused_drops_the_challenger(workspace: Workspace) -> None:
    version = workspace.register("one")
    workspace.propose(version)
    stage = Stage(workspace)

    def tamper(done: int, total: int, note: str) -> None:
        (workspace.registry.model_folder(version) / "config.json").write_text("changed")

    with pytest.raises(ValueError, match="model hash"):
        run_rollout(workspace.releases, stage.peer(), PROMPTS, CONFIG, clock=stage.clock, progress=tamper)
    last = workspace.releases.history()[-1]
    assert last.action == "drop" and "model hash" in last.reason
