"""The rollout loop against a peer with injected faults."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from release_fixtures import Workspace, empty_database, released, released_template, workspace  # noqa: F401

from sluice.serving.config import RolloutConfig
from sluice.serving.measurements import Measurements
from sluice.serving.release import ReleaseState
from sluice.serving.rollout import Completion, RolloutReport, run_rollout
from sluice.serving.routing import Arm, TrafficSource

CONFIG = RolloutConfig()
PROMPTS = [f"prompt {number}" for number in range(7)]


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
    calls: list[tuple[str, Arm | None, TrafficSource]] = field(default_factory=list)
    samples: list[tuple[str, float, bool, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(
        self, prompt: str, max_tokens: int, seed: int, source: TrafficSource = "replay", arm: Arm | None = None
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
            releases, peer, prompts, config, clock=self.clock, progress=lambda *call: self.notes.append(call)
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
    assert "error rate 0.0% <= 2.0%" in entries[-1].reason
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
        ({"latency_ms": math.nan}, "latency of nan ms per token"),
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
        ({"is_error": lambda number: number == 6}, "smoke test: errors 1 > 0, n=8"),
        ({"is_error": lambda number: True}, "smoke test: errors 8 > 0, n=8"),
        ({"latency_ms": math.nan}, "latency of nan"),
        ({"is_silent": True}, "smoke test: answers 0 < 8, n=0"),
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
