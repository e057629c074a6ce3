"""The rollout loop with its quality signals: a version that answers otherwise is dropped, or waits for a person."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from release_fixtures import Workspace, empty_database, released, released_template, workspace  # noqa: F401
from test_rollout import CONFIG, PROMPTS, Peer, Stage, stage  # noqa: F401

from sluice.model.evaluation.evaluated import AnswerRequest
from sluice.model.evaluation.parity import KeptAnswer
from sluice.serving.config import RolloutConfig
from sluice.serving.decision_record import difference
from sluice.serving.evidence import LiveCounts
from sluice.serving.measurements import Measurements
from sluice.serving.quality.known import KnownItem
from sluice.serving.quality.probes import QualityProbes, RolloutQuality
from sluice.serving.rollout import Completion, RolloutReport, _LiveMeter, run_rollout
from sluice.serving.routing import Arm

KEPT = [KeptAnswer(f"prompt {number}", 4, ("text", ""), (1.0, 1.0)) for number in range(70)]
ITEMS = [KnownItem(AnswerRequest(f"item {number}", 4), lambda text, _: float(text == "text")) for number in range(30)]


@dataclass
class Speaker(Peer):
    """A server whose challenger has answers of its own."""

    probed: str = "text"
    replayed: str = "text"

    def ask(self, request: AnswerRequest, arm: Arm) -> Completion:
        text = self.probed if arm == "challenger" else "text"
        return replace(self._completion("", arm, 10.0), text=text, finish_reason="stop")

    def complete(self, *call: object, **named: object) -> Completion:
        answer = super().complete(*call, **named)  # type: ignore[arg-type]
        return replace(answer, text=self.replayed if answer.arm == "challenger" else answer.text)


def roll_out(
    stage: Stage, peer: Speaker, kept: Sequence[KeptAnswer], config: RolloutConfig = CONFIG, note: str = ""
) -> RolloutReport:
    stage.workspace.time_s = stage.clock.now()
    probes = QualityProbes(kept, ITEMS, [note] if note else [])
    quality = RolloutQuality(peer, probes, config.quality)
    return run_rollout(stage.workspace.releases, peer, PROMPTS, config, quality=quality, clock=stage.clock)


def speaker(stage: Stage, **fields: object) -> Speaker:
    return Speaker(stage.workspace.releases.state, stage.clock, **fields)  # type: ignore[arg-type]


def test_a_version_that_gives_the_kept_answers_is_promoted_and_its_records_recompute(stage: Stage) -> None:
    report = roll_out(stage, speaker(stage), KEPT)
    assert report.outcome == "promoted"
    assert "greedy answers other than the gate's 0.0% not shown above 1.0%, n=70" in report.reason
    assert "wrong known answers 0.0% (champion 0.0%) not shown more often than the champion's, n=30" in report.reason
    entries = stage.workspace.releases.history()
    records = [entry.details["decision"] for entry in entries if "decision" in entry.details]
    assert records and [difference(record) for record in records] == [""] * len(records)


def test_a_version_that_is_served_otherwise_than_it_was_judged_is_dropped(stage: Stage) -> None:
    report = roll_out(stage, speaker(stage, probed="texts"), KEPT)
    assert report.outcome == "dropped"
    stage.assert_dropped("greedy answers other than the gate's")


def test_known_answers_that_only_the_champion_gives_drop(stage: Stage) -> None:
    report = roll_out(stage, speaker(stage, probed="wrong"), [], note="parity not available: the gate kept none")
    assert report.outcome == "dropped"
    stage.assert_dropped("wrong known answers 100.0% (champion 0.0%) shown more often than the champion's")


def test_without_kept_answers_the_reason_of_the_promotion_says_so(stage: Stage) -> None:
    report = roll_out(stage, speaker(stage), [], note="parity not available: the gate kept none")
    assert report.outcome == "promoted" and "parity not available: the gate kept none" in report.reason


def test_votes_are_counted_by_step_and_only_from_the_rollout_on(stage: Stage) -> None:
    peer = speaker(stage)
    votes = iter([(9, 9), (5, 2), (9, 9), (5, 2), (10, 9), (5, 6), (1, 0), (0, 2)])

    def measurements(version: str) -> Measurements:
        good, bad = next(votes)
        return Measurements(version, "two" if good < 2 else "one", {}, {"good": good, "bad": bad})

    peer.measurements = measurements  # type: ignore[method-assign]
    meter = _LiveMeter(peer, "2", "3")
    meter.begin_step(25)
    for _ in range(2):
        meter.poll()
    assert meter.steps == [LiveCounts(25, champion_votes=1, challenger_votes=4, challenger_bad_votes=4)]
    meter.begin_step(50)
    meter.poll()
    assert meter.steps[1] == LiveCounts(50, champion_votes=1, challenger_votes=2, challenger_bad_votes=2)


def test_users_who_vote_against_the_challenger_drop_it(stage: Stage) -> None:
    peer = speaker(stage, live_per_request=20)

    def measurements(version: str) -> Measurements:
        live = peer.live.get(version, 0)
        bad = live // (4 if version == "3" else 40)
        return Measurements(version, "one", {"live": {"answered": live}}, {"good": live - bad, "bad": bad})

    peer.measurements = measurements  # type: ignore[method-assign]
    report = roll_out(stage, peer, KEPT)
    assert report.outcome == "dropped"
    stage.assert_dropped("shown more than its part of the traffic")


@pytest.mark.parametrize("then", ["resume", "drop"])
def test_a_text_difference_waits_for_a_person(stage: Stage, then: str) -> None:
    releases, pauses, one_person = stage.workspace.releases, list[str](), threading.Lock()

    def person(number: int) -> None:
        with one_person:
            if releases.state().paused:
                pauses.append(releases.history()[-1].reason)
                getattr(releases, then)("looked at the answers")

    report = roll_out(stage, speaker(stage, replayed="", on_request=person), KEPT)
    assert len(pauses) == 1 and "paused for a person: empty answers 100.0% (champion 0.0%) shown" in pauses[0]
    if then == "drop":
        assert report.outcome == "superseded"
    else:
        assert report.outcome == "promoted" and "accepted by a person" in report.reason
        assert "pause" in [entry.action for entry in releases.history()]


def test_nobody_who_looks_leaves_the_challenger_its_place(stage: Stage) -> None:
    config = CONFIG.model_copy(update={"longest_pause_s": 20.0})
    report = roll_out(stage, speaker(stage, replayed=""), KEPT, config)
    assert report.outcome == "paused" and "paused for a person" in report.reason
    state = stage.workspace.releases.state()
    assert (state.challenger, state.challenger_weight, state.paused) == ("3", 0, True)


def test_a_person_who_looks_after_the_rollout_has_ended_lets_the_next_one_go_on(stage: Stage) -> None:
    config, releases = CONFIG.model_copy(update={"longest_pause_s": 20.0}), stage.workspace.releases
    peer = speaker(stage)

    def change(number: int) -> None:
        if releases.state().challenger_weight:
            peer.replayed = ""

    peer.on_request = change
    assert roll_out(stage, peer, KEPT, config).outcome == "paused"
    again = roll_out(stage, peer, KEPT, config)
    assert again.outcome == "paused" and "`sluice rollout resume`, then start it again" in again.reason
    releases.resume("looked at the answers")
    report = roll_out(stage, peer, KEPT, config)
    assert report.outcome == "promoted" and "accepted by a person" in report.reason


def test_the_policy_drops_for_a_text_difference(stage: Stage) -> None:
    quality = CONFIG.quality.model_copy(update={"text": "drop"})
    report = roll_out(stage, speaker(stage, replayed=""), KEPT, CONFIG.model_copy(update={"quality": quality}))
    assert report.outcome == "dropped"
    stage.assert_dropped("empty answers 100.0% (champion 0.0%) shown more often than the champion's")
