"""Signals of the answers' quality: what drops, what holds for a person, and what lets advance."""

import json
from dataclasses import replace

import pytest

from sluice.serving.canary import RolloutState, decide
from sluice.serving.config import RolloutConfig
from sluice.serving.decision_record import difference, record_decision
from sluice.serving.evidence import Evidence, LiveCounts, Pairs, Quality
from sluice.serving.quality.signals import KINDS

CONFIG = RolloutConfig()
GOOD = Evidence(Pairs(neither=150), Pairs(neither=140, champion=7), Pairs(neither=140, champion=7))


def seen(**quality: object) -> Evidence:
    return replace(GOOD, quality=Quality(**quality))  # type: ignore[arg-type]


def with_settings(**quality: object) -> RolloutConfig:
    return RolloutConfig.model_validate({"quality": quality})


def test_answers_other_than_the_gates_drop() -> None:
    decision = decide(RolloutState(), seen(parity_different=3, parity_compared=12, parity_kept=128), CONFIG)
    assert decision.action == "abort"
    assert "greedy answers other than the gate's 25.0% shown above 1.0%: largest e-value" in decision.reason


def test_parity_has_to_be_shown_before_a_challenger_advances() -> None:
    few = decide(RolloutState(), seen(parity_compared=30, parity_kept=128), CONFIG)
    assert few.action == "wait" and "gate's 0.0% not shown below 5.0%" in few.reason
    assert decide(RolloutState(), seen(parity_compared=0, parity_kept=128), CONFIG).action == "wait"
    assert decide(RolloutState(), seen(parity_compared=80, parity_kept=128), CONFIG).action == "advance"


def test_parity_is_known_once_all_kept_answers_were_compared() -> None:
    assert decide(RolloutState(), seen(parity_compared=20, parity_kept=20), CONFIG).action == "advance"
    some = decide(RolloutState(), seen(parity_different=1, parity_compared=20, parity_kept=20), CONFIG)
    assert some.action == "wait", "5 % of all prompts, and the limit is 1 %"
    one = seen(parity_different=1, parity_compared=128, parity_kept=128)
    assert decide(RolloutState(), one, CONFIG).action == "advance"


def test_known_answers_wrong_oftener_than_the_champions_drop() -> None:
    worse = decide(RolloutState(), seen(known=Pairs(neither=20, challenger=8, both=4), known_items=64), CONFIG)
    assert worse.action == "abort"
    assert "wrong known answers 37.5% (champion 12.5%) shown more often than the champion's" in worse.reason
    unfinished = decide(RolloutState(), seen(known=Pairs(neither=20), known_items=64), CONFIG)
    assert unfinished.action == "wait" and "need 44 more of 64 items" in unfinished.reason
    alike = seen(known=Pairs(neither=40, challenger=10, champion=8, both=6), known_items=64)
    assert decide(RolloutState(), alike, CONFIG).action == "advance"


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_text_difference_holds_for_a_person_drops_or_is_off_by_policy(kind: str) -> None:
    differs = seen(text={kind: Pairs(neither=100, challenger=15, champion=1)})
    held = decide(RolloutState(elapsed_s=5.0), differs, CONFIG)
    assert held.action == "pause" and held.state.paused_at == 5.0
    assert f"paused for a person: {KINDS[kind]} 12.9% (champion 0.9%) shown more often" in held.reason
    assert "sluice rollout resume" in held.reason
    assert decide(RolloutState(), differs, with_settings(text="drop")).action == "abort"
    assert decide(RolloutState(), differs, with_settings(text="off")).action == "advance"


def test_a_difference_that_a_person_accepted_holds_no_more() -> None:
    differs = seen(text={"longer": Pairs(neither=100, challenger=20)})
    state = decide(RolloutState(elapsed_s=5.0), differs, CONFIG).state
    accepted = decide(replace(state, elapsed_s=65.0, accepted=("text_longer",)), differs, CONFIG)
    assert accepted.action == "advance" and "accepted by a person" in accepted.reason
    assert accepted.state.accepted == ("text_longer",)
    other = replace(differs, quality=replace(differs.quality, text={"empty": Pairs(neither=100, challenger=20)}))
    assert decide(replace(state, accepted=("text_longer",)), other, CONFIG).action == "pause"


def test_a_few_differences_do_not_hold() -> None:
    some = seen(text={kind: Pairs(neither=100, challenger=9, champion=6) for kind in KINDS})
    assert decide(RolloutState(), some, CONFIG).action == "advance"


def voted(challenger: tuple[int, int], champion: tuple[int, int]) -> Evidence:
    step = LiveCounts(
        50,
        challenger=900,
        champion=900,
        challenger_bad_votes=challenger[0],
        challenger_votes=challenger[1],
        champion_bad_votes=champion[0],
        champion_votes=champion[1],
    )
    return replace(GOOD, live=(step,))


def test_bad_votes_drop_once_both_versions_have_enough() -> None:
    worse = decide(RolloutState(), voted((20, 40), (3, 40)), CONFIG)
    assert worse.action == "abort"
    assert "bad votes 50.0% (champion 7.5%) shown more than its part of the traffic" in worse.reason
    assert decide(RolloutState(), voted((20, 29), (3, 40)), CONFIG).action == "advance", "too few labels"
    assert decide(RolloutState(), voted((8, 40), (6, 40)), CONFIG).action == "advance"


def test_a_judge_that_finds_the_answers_worse_drops() -> None:
    decision = decide(RolloutState(), seen(judged=Pairs(neither=20, challenger=9)), CONFIG)
    assert decision.action == "abort" and "answers judged worse 31.0%" in decision.reason


def test_what_was_not_measured_is_noted_and_does_not_wait() -> None:
    decision = decide(RolloutState(), seen(notes=("parity not available: no file",)), CONFIG)
    assert decision.action == "advance" and "parity not available: no file" in decision.reason


@pytest.mark.parametrize(
    "evidence",
    [
        seen(parity_different=2, parity_compared=1, parity_kept=1),
        seen(known=Pairs(neither=-1)),
        seen(text={"empty": Pairs(challenger=-3)}),
        replace(GOOD, live=(LiveCounts(5, challenger_votes=1, challenger_bad_votes=2),)),
    ],
)
def test_impossible_counts_abort(evidence: Evidence) -> None:
    decision = decide(RolloutState(), evidence, CONFIG)
    assert decision.action == "abort" and "not" in decision.reason


def test_a_record_with_quality_is_recomputed_and_one_of_before_is_too() -> None:
    evidence = replace(
        voted((20, 40), (18, 40)),
        quality=Quality(0, 128, 128, Pairs(60, 2, 2), 64, {"empty": Pairs(50, 1)}, Pairs(9, 1), ("judge: off",)),
    )
    state = RolloutState(accepted=("text_empty",))
    record = json.loads(json.dumps(record_decision(state, evidence, CONFIG, decide(state, evidence, CONFIG))))
    assert Evidence.from_json(record["evidence"]) == evidence
    assert difference(record) == ""

    earlier = json.loads(
        json.dumps(record_decision(RolloutState(), GOOD, CONFIG, decide(RolloutState(), GOOD, CONFIG)))
    )
    del earlier["evidence"]["quality"], earlier["settings"]["quality"], earlier["state"]["accepted"]
    assert difference(earlier) == "" and earlier["reason"].startswith("challenger at 0 %: error rate 0.0% shown below")


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_parity_difference 0\.1 must be less than"):
        with_settings(max_parity_difference=0.1)
