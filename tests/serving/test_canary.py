"""The rollout's decisions: what each state of the evidence leads to, and properties that hold for all of it."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.serving.canary import RolloutState, decide, smoke
from sluice.serving.config import RolloutConfig, RolloutStep
from sluice.serving.evidence import Evidence, LiveCounts, Pairs, ReplayTotals, Reply

CONFIG = RolloutConfig()
LAST = RolloutState(step=len(CONFIG.steps) - 1, elapsed_s=10.0)
GOOD = Pairs(neither=140, champion=7)


def seen(
    errors: Pairs | None = None, first: Pairs = GOOD, between: Pairs = GOOD, live: tuple[LiveCounts, ...] = ()
) -> Evidence:
    return Evidence(errors or Pairs(neither=150), first, between, live)


def test_a_step_with_all_shown_advances_and_the_last_one_promotes() -> None:
    decision = decide(RolloutState(), seen(), CONFIG)
    assert decision.action == "advance"
    assert (decision.state.step, decision.state.elapsed_s, decision.state.replays_before) == (1, 0.0, 150)
    assert "challenger at 0 %: error rate 0.0% shown below 3.0%: largest e-value " in decision.reason
    assert "slow first tokens 0.0% (champion 4.8%) shown below 10.0%" in decision.reason
    assert "150 replayed prompts, no live traffic: decided on replays alone" in decision.reason
    assert decide(LAST, seen(), CONFIG).action == "promote"
    assert [check.outcome for check in decision.checks] == ["pass"] * 3


@pytest.mark.parametrize(
    ("evidence", "unclear"),
    [
        (Evidence(), "0 of 50 replayed prompts"),
        (seen(Pairs(neither=20)), "20 of 50 replayed prompts"),
        (seen(Pairs(neither=90)), "error rate 0.0% not shown below 3.0%"),
        (seen(Pairs(neither=146, challenger=4)), "error rate 2.7% not shown below 3.0%"),
        (seen(first=Pairs(neither=20)), "slow first tokens 0.0% (champion 0.0%) not shown below 10.0%"),
        (seen(between=Pairs()), "slow tokens unknown (champion unknown) not shown below 10.0%"),
    ],
    ids=["none", "few", "too few for errors", "errors", "first token", "one-token answers"],
)
def test_what_stays_unclear_until_the_longest_time_is_never_a_pass(evidence: Evidence, unclear: str) -> None:
    longest_s = CONFIG.steps[0].longest_s
    waiting = decide(RolloutState(elapsed_s=longest_s - 1), evidence, CONFIG)
    assert waiting.action == "wait" and unclear in waiting.reason
    over = decide(RolloutState(elapsed_s=longest_s), evidence, CONFIG)
    assert over.action == "abort" and f"inconclusive after {longest_s:.0f} s" in over.reason and unclear in over.reason


def test_errors_above_the_limit_and_the_champions_drop() -> None:
    decision = decide(RolloutState(), seen(Pairs(neither=14, challenger=6)), CONFIG)
    assert decision.action == "abort"
    assert "error rate 30.0% shown above 2.0% and above the champion's: largest e-value" in decision.reason
    failing = next(
        n for n in range(100) if decide(RolloutState(), Evidence(Pairs(challenger=n)), CONFIG).action == "abort"
    )
    assert failing <= 5


def test_errors_of_both_arms_pause_and_drop_nobody() -> None:
    shared = seen(Pairs(neither=180, both=20))
    paused = decide(RolloutState(elapsed_s=30.0), shared, CONFIG)
    assert paused.action == "pause" and paused.state.paused_at == 30.0
    assert "the champion's own error rate 10.0% is shown above 2.0%, n=200" in paused.reason
    split = decide(RolloutState(), seen(Pairs(neither=180, challenger=20, champion=20)), CONFIG)
    assert split.action == "pause", "failures of one cause that hit either arm"


def test_a_paused_rollout_is_still_judged_and_its_time_stands_still() -> None:
    shared, state = seen(Pairs(neither=180, both=20)), RolloutState(elapsed_s=30.0)
    state = decide(state, shared, CONFIG).state
    worse = seen(Pairs(neither=180, both=20, challenger=20))
    assert decide(replace(state, elapsed_s=40.0), worse, CONFIG).action == "abort"
    ended = decide(replace(state, elapsed_s=30.0 + CONFIG.longest_pause_s), shared, CONFIG)
    assert ended.action == "suspend"
    recovered = seen(Pairs(neither=5000, both=20))
    again = decide(replace(state, step=1, elapsed_s=630.0 - 1), recovered, CONFIG)
    assert (again.state.paused_s, again.state.paused_at) == (0.0, None), "an advance begins anew"
    longer = replace(recovered, first_token=Pairs())
    waiting = decide(replace(state, step=1, elapsed_s=700.0, peaks={}), longer, CONFIG)
    assert waiting.action == "wait", "670 s of 700 were a pause, so the step has 570 s left"
    assert (waiting.state.paused_s, waiting.state.paused_at) == (670.0, None)


def test_a_long_pause_by_hand_is_no_part_of_the_champions_pause() -> None:
    state, long_s = RolloutState(elapsed_s=30.0, paused_by_hand=True), 10 * CONFIG.longest_pause_s
    for elapsed_s in (30.0, 30.0 + long_s):
        decision = decide(replace(state, elapsed_s=elapsed_s), seen(), CONFIG)
        assert decision.action == "pause" and "paused by hand" in decision.reason
        state = decision.state
    shared, began_s = seen(Pairs(neither=180, both=20)), 31.0 + long_s
    assert decide(replace(state, elapsed_s=began_s), shared, CONFIG).action == "pause", "the champion failed just now"
    ended = decide(replace(state, elapsed_s=began_s + CONFIG.longest_pause_s), shared, CONFIG)
    assert ended.action == "suspend"
    going_on = replace(state, elapsed_s=began_s, paused_by_hand=False, peaks={})
    resumed = decide(going_on, seen(first=Pairs()), CONFIG)
    assert resumed.action == "wait" and resumed.state.paused_s == long_s + 1.0, "the step's time stood still"


def test_a_slow_challenger_is_dropped_by_either_time() -> None:
    slow = Pairs(neither=40, challenger=12, champion=1)
    for evidence in (seen(first=slow), seen(between=slow)):
        decision = decide(RolloutState(), evidence, CONFIG)
        assert decision.action == "abort"
        assert "22.6% (champion 1.9%) shown more than 1.5 times as slow as the champion" in decision.reason
    both = decide(RolloutState(), seen(first=Pairs(neither=140, both=40, champion=7)), CONFIG)
    assert both.action == "advance", "what slows both at once speaks against neither"


def test_an_increase_over_the_champion_drops_or_holds_where_it_is_bounded() -> None:
    bounded = CONFIG.model_copy(update={"max_error_increase": 0.01})
    some = seen(Pairs(neither=200))
    assert decide(RolloutState(), seen(Pairs(neither=300, champion=1)), CONFIG).action == "advance"
    assert "over the champion's not shown below 1.0" in decide(RolloutState(), some, bounded).reason
    assert decide(RolloutState(), seen(Pairs(neither=350)), bounded).action == "advance"
    more = decide(RolloutState(), seen(Pairs(neither=3000, challenger=58)), bounded)
    assert more.action == "abort" and "+1.9 points over the champion's shown above 1.0" in more.reason


def test_live_requests_are_waited_for_only_where_the_traffic_is_thick_enough() -> None:
    state = RolloutState(step=2, elapsed_s=10.0)
    earlier = (LiveCounts(0), LiveCounts(1))
    thick = seen(live=(*earlier, LiveCounts(5, challenger=4, champion=80)))
    assert decide(state, thick, CONFIG).reason == "4 of 10 live challenger requests"
    thin = decide(state, seen(live=(*earlier, LiveCounts(5, challenger=0, champion=2))), CONFIG)
    assert thin.action == "advance" and "decided on replays alone" in thin.reason
    stopped = decide(replace(state, elapsed_s=400.0), thick, CONFIG)
    assert stopped.action == "advance" and "4 live requests" in stopped.reason, "traffic that stops mid-step"


def test_live_failures_are_compared_as_the_traffic_is_split() -> None:
    """Twelve failures beside 1188 of the champion at 1 % of the traffic are its part; beside none they are not."""
    shared = (LiveCounts(0), LiveCounts(1, challenger=40, challenger_faults=12, champion=4000, champion_faults=1188))
    assert decide(RolloutState(step=1), seen(live=shared), CONFIG).action == "pause"
    own = (LiveCounts(0), LiveCounts(1, challenger=40, challenger_faults=12, champion=4000, champion_faults=0))
    assert decide(RolloutState(step=1), seen(live=own), CONFIG).action == "abort"


def test_least_time_and_replays_of_the_step_hold() -> None:
    slower = CONFIG.model_copy(update={"steps": [RolloutStep(weight=100, least_replays=2, least_s=2.0)]})
    state = RolloutState(elapsed_s=0.5, replays_before=149)
    assert decide(state, seen(), slower).reason == "1 of 2 replayed prompts"
    assert decide(replace(state, replays_before=100), seen(), slower).reason == "0.5 of 2 s"


@pytest.mark.parametrize(
    "evidence",
    [
        seen(Pairs(neither=-1)),
        seen(first=Pairs(neither=200, challenger=-2)),
        seen(live=(LiveCounts(0, challenger=5, challenger_faults=6),)),
        seen(live=(LiveCounts(0, champion=-1),)),
        seen(Pairs(neither=math.nan)),  # type: ignore[arg-type]
        replace(seen(), invalid="first_token of nan ms is not a measurement"),
    ],
)
def test_what_cannot_be_measured_aborts(evidence: Evidence) -> None:
    assert decide(LAST, evidence, CONFIG).action == "abort"


def test_smoke_wants_an_answer_to_every_prompt() -> None:
    assert smoke(8, 0, "", CONFIG).action == "promote"
    assert smoke(7, 0, "", CONFIG).action == smoke(0, 0, "", CONFIG).action == "abort"
    assert "errors 1 > 0, n=8" in smoke(7, 1, "", CONFIG).reason
    assert smoke(8, 0, "first_token of nan ms is not a measurement", CONFIG).action == "abort"


COUNTS = st.integers(0, 400)
PAIRS = st.builds(Pairs, COUNTS, st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
LIVE = st.builds(lambda good, bad: LiveCounts(10, good + bad, bad, 9 * good, 0), COUNTS, st.integers(0, 10))
EVIDENCE = st.builds(Evidence, PAIRS, PAIRS, PAIRS, st.lists(LIVE, max_size=1).map(tuple))
RANK = {"abort": 0, "suspend": 1, "pause": 1, "wait": 1, "advance": 2, "promote": 2}


@given(EVIDENCE, st.sampled_from(["errors", "first_token", "between_tokens"]), st.integers(1, 20))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_more_bad_answers_never_help(evidence: Evidence, name: str, count: int) -> None:
    """Good answers of the challenger that turn bad, at the same number of answers."""
    pairs: Pairs = getattr(evidence, name)
    moved = min(count, pairs.neither)
    worse = replace(pairs, neither=pairs.neither - moved, challenger=pairs.challenger + moved)
    before, after = (
        decide(RolloutState(), each, CONFIG)
        for each in (evidence, replace(evidence, **{name: worse}))  # type: ignore[arg-type]
    )
    assert RANK[after.action] <= RANK[before.action]


@given(EVIDENCE)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_decision_is_pure_and_earlier_looks_can_only_drop_or_have_shown(evidence: Evidence) -> None:
    first = decide(RolloutState(), evidence, CONFIG)
    assert decide(RolloutState(), evidence, CONFIG) == first
    again = decide(replace(RolloutState(), peaks=first.state.peaks), evidence, CONFIG)
    assert again.action == first.action, "a second look at the same evidence changes nothing"


@given(st.lists(st.sampled_from(["good", "challenger", "champion", "both", "slow"]), max_size=120), st.randoms())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_order_of_the_errors_does_not_matter(kinds: list[str], random: object) -> None:
    replies = {
        "good": (Reply("answered", 10.0, 5.0), Reply("answered", 10.0, 5.0)),
        "slow": (Reply("answered", 10.0, 5.0), Reply("answered", 99.0, 5.0)),
        "challenger": (Reply("answered", 10.0, 5.0), Reply("model_fault")),
        "champion": (Reply("model_fault"), Reply("answered", 10.0, 5.0)),
        "both": (Reply("model_fault"), Reply("model_fault")),
    }
    totals = []
    for order in (kinds, sorted(kinds, key=lambda _: random.random())):  # type: ignore[attr-defined]
        counted = ReplayTotals(CONFIG)
        for kind in order:
            counted.add(*replies[kind])
        totals.append(counted.evidence)
    assert totals[0].errors == totals[1].errors


@pytest.mark.parametrize("reply", ["capacity", "client_mistake", "client_left"])
def test_what_judges_no_version_is_counted_apart(reply: str) -> None:
    counted = ReplayTotals(CONFIG)
    for pair in ((Reply("answered", 1.0, 1.0), Reply(reply)), (Reply(reply), Reply("model_fault"))):  # type: ignore[arg-type]
        counted.add(*pair)
    assert counted.evidence == Evidence() and counted.not_judged == {reply: 2}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, None])
@pytest.mark.parametrize("arm", [0, 1])
def test_a_time_that_is_none_makes_the_evidence_invalid(value: float | None, arm: int) -> None:
    counted, good = ReplayTotals(CONFIG), Reply("answered", 1.0, 1.0)
    replies = [good, good]
    replies[arm] = Reply("answered", value, 1.0)
    counted.add(*replies)
    assert f"first_token of {value} ms is not a measurement" in counted.evidence.invalid
    assert decide(LAST, counted.evidence, CONFIG).action == "abort"


def test_a_champion_that_may_be_over_its_limit_holds_the_rollout() -> None:
    evidence = seen(Pairs(neither=194, both=8))
    longest_s = CONFIG.steps[0].longest_s
    waiting = decide(RolloutState(elapsed_s=10.0), evidence, CONFIG)
    assert waiting.action == "wait" and "champion's own error rate 4.0% may be above 2.0%" in waiting.reason
    over = decide(RolloutState(elapsed_s=longest_s), evidence, CONFIG)
    assert over.action == "suspend" and over.reason == waiting.reason, "nothing speaks against the challenger"
    assert decide(RolloutState(elapsed_s=10.0), seen(Pairs(neither=199, both=3)), CONFIG).action == "advance"


def test_slow_is_counted_against_the_champions_earlier_answers() -> None:
    counted = ReplayTotals(CONFIG)
    for number in range(10):
        counted.add(Reply("answered", 10.0 + number, 2.0), Reply("answered", 500.0, None))
    assert counted.evidence.first_token.n == counted.evidence.between_tokens.n == 0, "too few to know a quantile"
    bound = 19.0  # the largest of ten answers
    counted.add(Reply("answered", bound, 2.0), Reply("answered", 1.5 * bound, None))
    counted.add(Reply("answered", 10.0, 2.0), Reply("answered", 1.5 * bound + 0.1, None))
    assert counted.evidence.first_token == Pairs(neither=1, challenger=1)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in (
        {"steps": [{"weight": 10}]},
        {"steps": [{"weight": 50}, {"weight": 10}, {"weight": 100}]},
        {"max_error_rate": 0.03},
        {"max_slow": 0.2},
        {"steps": [{"weight": 100, "least_s": 600}]},
        {"steps": []},
    ):
        with pytest.raises(ValueError, match=r"must|at least 1 item"):
            RolloutConfig.model_validate(wrong)
    assert RolloutConfig(steps=[RolloutStep(weight=100)]).longest_s == 120 + 600 + 600
