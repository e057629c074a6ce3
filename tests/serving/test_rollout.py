"""The rollout loop against a peer with injected faults."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from release_fixtures import Workspace, empty_database, released, released_template, workspace  # noqa: F401

from sluice.core.progress import Progress
from sluice.monitoring.traffic.classify import AttemptClass
from sluice.serving.canary import RolloutState, decide
from sluice.serving.config import RolloutConfig, RolloutStep
from sluice.serving.decision_record import difference, recompute, record_decision
from sluice.serving.evidence import Evidence, LiveCounts, Pairs, Reply
from sluice.serving.lease import LeaseLost
from sluice.serving.ledger_chain import RecordedEntry
from sluice.serving.measurements import Measurements
from sluice.serving.release import ReleaseState
from sluice.serving.rollout import Completion, RolloutReport, Told, _LiveMeter, _ShadowReader, resume_at, run_rollout
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
    is_full: bool = False
    """Refuses the challenger's requests for want of a slot."""
    champion_is_error: Callable[[int], bool] = lambda number: False
    live_per_request: int = 0
    """Live requests that come with each replayed one."""
    on_request: Callable[[int], None] = lambda number: None
    calls: list[tuple[str, Arm | None, TrafficSource]] = field(default_factory=list)
    shadowed: list[dict[str, Any]] = field(default_factory=list)
    """Pairs of answers to shadowed live requests so far."""
    pairs_sent: int = 0
    live: dict[str, int] = field(default_factory=dict)
    """Live requests by version; all are answered."""
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
            state = self.state()
            answer = self._answer(state, arm, number)
            for turn in range(self.live_per_request):
                is_challenged = (number * self.live_per_request + turn) % 100 < state.challenger_weight
                version = str(state.challenger if is_challenged else state.champion)
                self.live[version] = self.live.get(version, 0) + 1
            self.clock.sleep(0.05)
            return answer

    def _answer(self, state: ReleaseState, arm: Arm | None, number: int) -> Completion:
        wanted = arm or ("challenger" if number % 100 < state.challenger_weight and self.routes_weights else "champion")
        if wanted == "challenger":
            if self.is_full or number <= self.loading_polls or state.challenger is None:
                return self._failure(503, wanted, "capacity")
            if not self.is_error(number):
                return self._completion(state.challenger, "challenger", self.latency_ms)
        fault: AttemptClass = "model_fault" if wanted == "challenger" else "answered"
        if state.champion is None or self.champion_is_error(number):
            return self._failure(500, wanted, "model_fault")
        return self._completion(state.champion, "champion", 20.0, fault)

    def _completion(
        self, version: str, arm: str, latency_ms: float, attempt_class: AttemptClass = "answered"
    ) -> Completion:
        fell_back = attempt_class == "model_fault"
        return Completion(version, arm, 200, "text", attempt_class, latency_ms, latency_ms, 10 * latency_ms, fell_back)

    def _failure(self, status: int, arm: str, attempt_class: AttemptClass) -> Completion:
        return Completion("", arm, status, "", attempt_class, math.nan, None, 0.0, False)

    def measurements(self, version: str) -> Measurements:
        with self.lock:
            return Measurements(version, "one", {"live": {"answered": self.live.get(version, 0)}})

    def shadow(self, after: int) -> dict[str, Any]:
        found = [pair for pair in self.shadowed if pair["n"] > after][:100]
        self.pairs_sent += len(found)
        return {"pairs": found, "last": len(self.shadowed), "skipped": 0, "in_flight": 0}


@dataclass
class Stage:
    """A workspace with a challenger, and the time that its rollout lives in."""

    workspace: Workspace
    clock: FakeClock = field(default_factory=FakeClock)
    notes: list[tuple[int, int, str]] = field(default_factory=list)

    def peer(self, **faults: object) -> Peer:
        return Peer(self.workspace.releases.state, self.clock, **faults)  # type: ignore[arg-type]

    def run(
        self,
        peer: Peer,
        prompts: list[str] = PROMPTS,
        config: RolloutConfig = CONFIG,
        lease: Told | None = None,
        progress: Progress | None = None,
    ) -> RolloutReport:
        self.workspace.time_s = self.clock.now()
        releases = self.workspace.releases
        note = progress or (lambda *call: self.notes.append(call))
        return run_rollout(releases, peer, prompts, config, lease=lease, clock=self.clock, progress=note)

    @property
    def actions(self) -> list[tuple[str, str]]:
        """Entries of the ledger about the challenger."""
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
    assert [step.weight for step in report.steps] == [0, 1, 5, 25, 50, 100, 100]
    assert stage.actions == [("propose", "3"), *[("weight", "3")] * 6, ("promote", "3")]
    entries = stage.workspace.releases.history()
    assert [entry.details["percent"] for entry in entries if entry.action == "weight"] == [1, 5, 25, 50, 100, 100]
    assert "error rate 0.0% shown below 3.0%" in entries[-1].reason
    assert "decided on replays alone" in entries[-1].reason
    assert stage.workspace.aliases() == {"previous-champion": "2", "champion": "3", "challenger": None}
    assert {"await_s", "step_1_0_s", "step_7_100_s"} < set(report.timings)


def test_both_arms_answer_the_same_prompts(stage: Stage) -> None:
    peer = stage.peer(loading_polls=0)
    stage.run(peer)
    pinned = [call for call in peer.calls[1:] if call[1] is not None]
    asked = {arm: sorted(prompt for prompt, called, _ in pinned if called == arm) for arm in ("champion", "challenger")}
    assert abs(len(asked["champion"]) - len(asked["challenger"])) <= 1
    assert set(asked["champion"]) == set(asked["challenger"]) == set(PROMPTS)
    assert {source for _, _, source in pinned} == {"replay"}
    done = [done for done, _, _ in stage.notes]
    assert done == sorted(done) and done[-1] == stage.notes[-1][1] == sum(step.least_replays for step in CONFIG.steps)


def test_errors_hidden_by_the_fallback_drop_the_challenger(stage: Stage) -> None:
    report = stage.run(stage.peer(is_error=lambda number: True))
    assert report.outcome == "dropped" and report.unanswered == 0 and report.replayed <= 20
    stage.assert_dropped("shown above 2.0%")
    assert report.reason == stage.workspace.releases.history()[-1].reason


def test_each_decision_in_the_ledger_can_be_computed_again(stage: Stage) -> None:
    stage.run(stage.peer(live_per_request=3))
    entries = stage.workspace.releases.history()
    records = [entry.details["decision"] for entry in entries if "decision" in entry.details]
    assert [record["action"] for record in records] == ["advance"] * 6 + ["promote"]
    assert [difference(record) for record in records] == [""] * 7
    assert recompute(records[-1]).reason == entries[-1].reason
    stricter = {**records[-1], "settings": {**records[-1]["settings"], "unacceptable_error_rate": 0.021}}
    assert difference(stricter).startswith("recorded promote: ")


def test_live_requests_are_counted_by_step_and_only_from_the_rollout_on(stage: Stage) -> None:
    peer = stage.peer(live_per_request=20, live={"2": 1000})
    report = stage.run(peer)
    assert report.outcome == "promoted"
    live = {(number, step.weight): step.live for number, step in enumerate(report.steps)}
    assert live[0, 0] == 0 and all(live[number, weight] >= 5 for number, weight in live if weight)
    assert sum(live.values()) <= peer.live["3"]
    assert "live requests" in report.reason and "replays alone" not in report.reason


def test_a_restarted_gateway_counts_on(stage: Stage) -> None:
    peer = stage.peer()
    counts = iter([("one", 100), ("one", 100), ("one", 130), ("one", 130), ("two", 7), ("two", 7)])

    def measurements(version: str) -> Measurements:
        gateway, number = next(counts)
        return Measurements(version, gateway, {"live": {"answered": number, "model_fault": 1, "capacity": 50}})

    peer.measurements = measurements  # type: ignore[method-assign]
    meter = _LiveMeter(peer, "2", "3")
    meter.begin_step(10)
    meter.poll()
    assert meter.steps == [LiveCounts(10, challenger=30, champion=30)]
    meter.begin_step(50)
    meter.poll()
    assert meter.steps[1] == LiveCounts(50, challenger=8, challenger_faults=1, champion=8, champion_faults=1)


def test_errors_of_both_versions_pause_the_rollout_and_leave_the_challenger_its_place(stage: Stage) -> None:
    config = CONFIG.model_copy(update={"longest_pause_s": 20.0})
    shared = {"is_error": lambda number: number > 20, "champion_is_error": lambda number: number > 20}
    report = stage.run(stage.peer(**shared), config=config)
    assert report.outcome == "paused" and "the champion's own error rate" in report.reason
    last = stage.workspace.releases.history()[-1]
    assert (last.action, last.details["percent"], last.details["decision"]["action"]) == ("weight", 0, "suspend")
    assert stage.workspace.releases.state().challenger == "3"
    assert stage.run(stage.peer()).outcome == "promoted", "the same command goes on"


def test_errors_that_begin_in_a_later_step_drop_the_challenger(stage: Stage) -> None:
    report = stage.run(stage.peer(is_error=lambda number: number > 100))
    assert report.outcome == "dropped"
    stage.assert_dropped("challenger at 0 %: error rate")


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"latency_ms": 100.0}, "shown more than 1.5 times as slow as the champion"),
        ({"latency_ms": math.nan}, "first_token of nan ms is not a measurement"),
        ({"is_full": True}, "did not serve version 3 within 20 s, last status 503"),
        ({"loading_polls": 10**9}, "did not serve version 3 within 20 s, last status 503"),
        ({"routes_weights": False}, "did not route traffic to version 3 within 20 s"),
    ],
    ids=["slow", "nan", "full", "never loaded", "weights ignored"],
)
def test_a_fault_drops_the_challenger_with_its_reason(stage: Stage, faults: dict[str, object], reason: str) -> None:
    report = stage.run(stage.peer(**faults), config=CONFIG.model_copy(update={"ready_timeout_s": 20.0}))
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
    stage.assert_dropped("interrupted")


def test_a_client_that_hangs_is_a_bounded_wait(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.serving.rollout.POLL_S", 0.01)
    steps = [RolloutStep(weight=100, longest_s=0.5)]
    config, freed = CONFIG.model_copy(update={"steps": steps}), threading.Event()
    peer = stage.peer(on_request=lambda number: number > 10 and freed.wait(60))
    report = stage.run(peer, config=config)
    freed.set()
    assert report.outcome == "dropped"
    stage.assert_dropped("inconclusive")


class Killed(BaseException):
    """The end of a controller that could clean up nothing."""


def kill_at(stage: Stage, weight: int, config: RolloutConfig = CONFIG) -> None:
    """Run the rollout until its challenger has this weight, then end it as SIGKILL would."""
    releases = stage.workspace.releases

    def kill(done: int, total: int, note: str) -> None:
        if releases.state().challenger_weight == weight:
            raise Killed

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr("sluice.serving.releases.Releases.drop", lambda *_, **__: None)
        stage.run(stage.peer(live_per_request=3), config=config, progress=kill)
    assert (releases.state().challenger, releases.state().challenger_weight) == ("3", weight)


def test_a_rollout_goes_on_where_a_killed_controller_left_it(stage: Stage) -> None:
    kill_at(stage, 25)
    weights = [entry.details.get("percent") for entry in stage.workspace.releases.history() if entry.version == "3"]
    assert weights == [None, 1, 5, 25]
    report = stage.run(stage.peer(live_per_request=3))
    assert report.outcome == "promoted"
    assert [step.weight for step in report.steps] == [25, 50, 100, 100]
    # The replays before the kill count on.
    assert report.steps[0].requests > report.replayed / 2
    for entry in stage.workspace.releases.history():
        if record := entry.details.get("decision"):
            assert difference(record) == ""


def test_a_rollout_that_ended_in_doubt_of_the_champion_has_its_last_step_anew() -> None:
    evidence = Evidence(Pairs(neither=194, both=8), Pairs(202), Pairs(202))
    state = RolloutState(elapsed_s=CONFIG.steps[0].longest_s + 50.0, paused_s=50.0)
    ended = decide(state, evidence, CONFIG)
    assert ended.action == "suspend" and "may be above" in ended.reason
    details = {"percent": 0, "decision": record_decision(state, evidence, CONFIG, ended)}
    again, _ = resume_at([RecordedEntry(2.0, "weight", "3", "rollout", "x", details)], CONFIG)
    assert again.elapsed_s - again.paused_s == 0.0


def test_a_version_that_is_proposed_again_begins_anew_whatever_its_earlier_rollout_has_shown(stage: Stage) -> None:
    kill_at(stage, 25)
    releases = stage.workspace.releases
    releases.drop("by hand")
    stage.workspace.propose("3")
    assert releases.since_proposal("3") == [] and releases.since_proposal("never proposed") == []
    report = stage.run(stage.peer(live_per_request=3))
    assert [step.weight for step in report.steps] == [0, 1, 5, 25, 50, 100, 100]


def test_other_settings_begin_a_killed_rollout_anew(stage: Stage) -> None:
    kill_at(stage, 25)
    report = stage.run(stage.peer(live_per_request=3), config=CONFIG.model_copy(update={"alpha": 0.04}))
    assert [step.weight for step in report.steps] == [0, 1, 5, 25, 50, 100, 100]
    assert report.outcome == "promoted"


def test_a_rollout_paused_by_hand_is_judged_and_stands_still_until_it_is_resumed(stage: Stage) -> None:
    releases, seen, one_at_a_time = stage.workspace.releases, list[int](), threading.Lock()

    def steer(number: int) -> None:
        with one_at_a_time:
            state = releases.state()
            if state.challenger_weight == 5 and not state.paused and not seen:
                state = releases.pause("look at it first")
            if state.paused:
                seen.append(state.challenger_weight)
                stage.clock.sleep(60.0)
                if len(seen) == 50:
                    releases.resume("it is fine")

    report = stage.run(stage.peer(on_request=steer, live_per_request=3))
    assert report.outcome == "promoted"
    # 3,000 s of a pause, in a step that takes at most 600.
    assert set(seen) == {5} and len(seen) >= 50
    assert [action for action, _ in stage.actions if action in ("pause", "resume")] == ["pause", "resume"]


def test_a_paused_rollout_drops_a_challenger_that_begins_to_fail(stage: Stage) -> None:
    releases, one_at_a_time = stage.workspace.releases, threading.Lock()

    def pause(number: int) -> None:
        with one_at_a_time:
            if releases.state().challenger_weight == 5 and not releases.state().paused:
                releases.pause("look at it first")

    peer = stage.peer(on_request=pause, is_error=lambda number: releases.state().paused)
    report = stage.run(peer)
    assert report.outcome == "dropped"
    stage.assert_dropped("error rate")


class Lost:
    """A lease that another controller takes while the rollout runs."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []

    def set(self, *, shadow: bool | None = None, progress: Mapping[str, Any] | None = None) -> None:
        if progress:
            self.told.append(progress)
        if len(self.told) == 5:
            raise LeaseLost("another controller has taken over the rollout of version 3")


def test_a_controller_that_lost_its_lease_leaves_the_challenger_to_the_next_one(stage: Stage) -> None:
    lease = Lost()
    report = stage.run(stage.peer(), lease=lease)
    assert (report.outcome, stage.workspace.releases.state().challenger) == ("superseded", "3")
    assert {check["metric"] for check in lease.told[0]["checks"]} >= {"error_rate", "first_token", "between_tokens"}
    assert lease.told[0]["version"] == "3" and lease.told[0]["wanted_weight"] == 0


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
        ({"latency_ms": math.nan}, "first_token of nan ms"),
    ],
    ids=["one error", "errors alone", "nan"],
)
def test_a_first_version_that_fails_its_smoke_test_is_dropped(
    workspace: Workspace, faults: dict[str, object], reason: str
) -> None:
    workspace.propose(workspace.register("one"))
    stage = Stage(workspace)
    report = stage.run(stage.peer(**faults), config=CONFIG.model_copy(update={"ready_timeout_s": 20.0}))
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


def shadowed(number: int, session: str, challenger: str = "answered", version: str = "3") -> dict[str, Any]:
    """A pair of a shadowed request that the champion answered."""
    reply = {"first_token_ms": 20.0, "between_tokens_ms": 20.0, "finish_reason": "stop", "text": "text"}
    return {
        "n": number,
        "version": version,
        "session": session,
        "champion": {"attempt_class": "answered", **reply},
        "challenger": {"attempt_class": challenger, **reply},
    }


def test_failures_on_shadowed_requests_drop_the_challenger(stage: Stage) -> None:
    peer = stage.peer(shadowed=[shadowed(1, "", "model_fault")])

    def shadow(number: int) -> None:
        peer.shadowed.append(shadowed(len(peer.shadowed) + 1, "", "model_fault"))

    peer.on_request = shadow
    assert stage.run(peer).outcome == "dropped"
    stage.assert_dropped("challenger at 0 %: error rate")


def test_a_conversation_counts_once_and_earlier_pairs_and_other_versions_do_not(stage: Stage) -> None:
    peer = stage.peer(shadowed=[shadowed(1, "", "model_fault")])
    reader = _ShadowReader(peer, "3")
    assert peer.pairs_sent == 0
    peer.shadowed += [
        shadowed(2, "one"),
        shadowed(3, "one", "model_fault"),
        shadowed(4, "", "capacity"),
        shadowed(5, "", version="9"),
    ]
    answered = Reply("answered", 20.0, 20.0)
    assert reader.poll() == [(answered, answered), (answered, Reply("capacity", 20.0, 20.0))]
    assert reader.poll() == []
    peer.shadowed = [shadowed(1, "two")]
    assert reader.poll() == [(answered, answered)], "the gateway began anew"
