"""The gate's rules, and the laws they obey whatever the data."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from sluice.model.evaluation.finding import holm
from sluice.model.evaluation.gate import decide
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.policy import Policy
from sluice.model.evaluation.results import Evaluation, Item

BITS_PER_BYTE, CHOICE_ACCURACY, GOLDEN_RATE = "bits_per_byte", "choice_accuracy", "golden_pass_rate"
WORSE = {BITS_PER_BYTE: lambda value: value * 1.1, CHOICE_ACCURACY: lambda value: 0.0, GOLDEN_RATE: lambda value: 0.0}
"""A worse value of one item, by metric with items."""
ROWS = sorted(WORSE)
COMPARED = [BITS_PER_BYTE, CHOICE_ACCURACY, GOLDEN_RATE]
"""Metrics whose check reads the champion's items."""
POLICY = Policy(name="test", version=1)
NAMES = {
    "alone": [BITS_PER_BYTE, CHOICE_ACCURACY, GOLDEN_RATE, "first_token_p95_ms"],
    "first": ["bits_per_byte_over_reference"],
    "compared": [
        "bits_per_byte_difference",
        "bits_per_byte_tail",
        "bits_per_byte_budget",
        "choice_accuracy_difference",
        "choice_accuracy_budget",
        "golden_pass_rate_lost",
    ],
}
RANK = {"reject": 0, "hold": 1, "promote": 2}
DOCUMENTS = 90
QUESTIONS = 300


def policy(**bounds):
    """The default policy with other bounds: `bits_per_byte={"margin": 0.01}`."""
    return Policy(name="test", version=1, metrics=bounds)


def evaluation(
    bits=2.2, correct=150, golden=12, model="a", seed=0, documents=DOCUMENTS, questions=QUESTIONS, p95=20.0, samples=64
):
    """Evidence whose bits per byte scatter about `bits`, with `correct` right answers; the n-gram model needs 2.6."""
    generator = np.random.default_rng(99)
    sizes = generator.integers(500, 8000, documents).astype(float)
    spread, level = generator.normal(0, 0.3, documents), np.random.default_rng(seed).normal(0, 0.01, documents)
    level += bits + spread
    about = [{"source": f"s{i % 3}"} for i in range(documents)]
    rows = {
        BITS_PER_BYTE: [
            Item(BITS_PER_BYTE, f"d{i}", level[i] * sizes[i], sizes[i], f"d{i}", about[i]) for i in range(documents)
        ],
        CHOICE_ACCURACY: [Item(CHOICE_ACCURACY, f"q{i}", float(i < correct)) for i in range(questions)],
        GOLDEN_RATE: [Item(GOLDEN_RATE, f"g{i}", float(i < golden)) for i in range(12)],
    }
    ngram = {f"d{i}": (2.6 + spread[i]) * sizes[i] for i in range(documents)}
    return Evaluation(
        results={
            "hashes": {"model": model, "evaluation_set": "s"},
            "planned": {metric: len(items) for metric, items in rows.items()},
            "choices": 4,
            "baselines": {"ngram_order_5": {"bits_by_item": ngram}},
        },
        items={metric: tuple(items) for metric, items in rows.items()},
        timings={"first_token_p95_ms": p95, "first_token_samples": samples},
    )


def moved(whole, bits, model="c"):
    """The same evidence with `bits` more per byte in every document, and another model's hash."""
    items = tuple(replace(item, value=item.value + bits * item.weight) for item in whole.items[BITS_PER_BYTE])
    results = {**whole.results, "hashes": {**whole.hashes, "model": model}}
    return replace(whole, results=results).with_items(BITS_PER_BYTE, items)


def outcome_of(verdict, metric):
    return next(check for check in verdict.checks if check.metric == metric)


def test_every_metric_with_items_is_covered_here():
    assert [metric.name for metric in METRICS if metric.summarize] == ROWS
    assert [metric.name for metric in METRICS] == NAMES["alone"]


def test_a_sound_first_version_is_promoted():
    verdict = decide(evaluation(), None, POLICY)
    assert verdict.outcome == "promote" and verdict.is_first_version, verdict.reason
    assert {check.metric for check in verdict.checks} == {*NAMES["alone"], *NAMES["first"]}
    assert verdict.correction == "promote: each check one-sided at 5.0%; reject: Holm over 5 checks"
    assert all(check.clusters for check in verdict.checks if check.interval)
    assert verdict.hashes["policy"] == POLICY.sha256


def test_an_equal_model_is_promoted_over_the_champion():
    verdict = decide(evaluation(model="b", seed=1), evaluation(), POLICY)
    assert verdict.outcome == "promote" and not verdict.is_first_version, verdict.reason
    assert {check.metric for check in verdict.checks} == {*NAMES["alone"], *NAMES["compared"]}
    assert verdict.hashes["model"] == "b" and verdict.hashes["champion_model"] == "a"
    found = outcome_of(verdict, "choice_accuracy_difference")
    assert (found.baseline, found.clusters) == (0.5, QUESTIONS) and "n=300, clusters=300" in found.reason


def test_the_champion_itself_is_held():
    verdict = decide(evaluation(), evaluation(), POLICY)
    assert verdict.outcome == "hold" and "is already the champion" in verdict.reason


def test_an_untrained_model_is_rejected_with_the_comparison():
    verdict = decide(evaluation(bits=7.9, correct=74, golden=0), None, POLICY)
    assert verdict.outcome == "reject"
    assert verdict.reason.startswith("bits_per_byte 7.8") and "> 3.000, n=90, clusters=90" in verdict.reason
    assert "golden_pass_rate 0.000 < 1.000, n=12" in verdict.reason


@pytest.mark.parametrize(
    ("change", "metric", "outcome"),
    [
        ({"bits": 3.03}, BITS_PER_BYTE, "hold"),
        ({"bits": 2.59}, "bits_per_byte_over_reference", "promote"),
        ({"bits": 2.6}, "bits_per_byte_over_reference", "hold"),
        ({"bits": 2.7}, "bits_per_byte_over_reference", "reject"),
        ({"correct": 80}, CHOICE_ACCURACY, "hold"),
        ({"correct": 40}, CHOICE_ACCURACY, "reject"),
        ({"golden": 11}, GOLDEN_RATE, "reject"),
        ({"p95": 3001}, "first_token_p95_ms", "reject"),
        ({"p95": math.nan}, "first_token_p95_ms", "reject"),
        ({"samples": 0, "p95": math.nan}, "first_token_p95_ms", "hold"),
        ({"samples": 16}, "first_token_p95_ms", "hold"),
        ({"documents": 79}, BITS_PER_BYTE, "hold"),
        ({"questions": 20, "correct": 20}, CHOICE_ACCURACY, "hold"),
    ],
)
def test_absolute_bounds(change, metric, outcome):
    bounds = policy(bits_per_byte={"beat_reference": False}) if metric == BITS_PER_BYTE else POLICY
    verdict = decide(evaluation(**change), None, bounds)
    assert verdict.outcome == outcome, verdict.reason
    expected = {"hold": "inconclusive", "reject": "fail", "promote": "pass"}[outcome]
    assert outcome_of(verdict, metric).outcome == expected
    assert metric in verdict.reason


@pytest.mark.parametrize(
    ("change", "metric", "setting"),
    [
        ({"samples": 16}, "first_token_p95_ms", "evaluate.latency_prompts"),
        ({"documents": 79}, BITS_PER_BYTE, "evaluate.documents"),
        ({"questions": 20, "correct": 20}, CHOICE_ACCURACY, "evaluate.multiple_choice_items"),
    ],
)
def test_too_few_samples_name_the_setting_that_gives_more(change, metric, setting):
    bounds = policy(bits_per_byte={"beat_reference": False}) if metric == BITS_PER_BYTE else POLICY
    assert f"raise {setting}" in outcome_of(decide(evaluation(**change), None, bounds), metric).reason


def test_a_reference_that_is_missing_for_some_documents_holds():
    first = evaluation()
    bits = dict(first.results["baselines"]["ngram_order_5"]["bits_by_item"])
    del bits["d3"]
    results = {**first.results, "baselines": {"ngram_order_5": {"bits_by_item": bits}}}
    verdict = decide(replace(first, results=results), None, POLICY)
    assert verdict.outcome == "hold" and "1 of 90 items have no reference" in verdict.reason


def test_a_model_worse_than_the_champion_is_rejected_within_the_absolute_bounds():
    verdict = decide(evaluation(bits=2.3, model="b", seed=1), evaluation(), POLICY)
    assert verdict.outcome == "reject"
    assert outcome_of(verdict, BITS_PER_BYTE).outcome == "pass"
    assert verdict.reason.startswith("bits_per_byte_difference +0.09")
    assert "> +0.020, n=90, clusters=90 (2." in verdict.reason


def test_a_champion_measured_on_other_items_is_no_comparison():
    champion = evaluation()
    for change in ({"item": "x"}, {"weight": 1e4}, {"cluster": "x"}):
        other = tuple(replace(item, **change) if item.item == "d5" else item for item in champion.items[BITS_PER_BYTE])
        verdict = decide(evaluation(model="b"), champion.with_items(BITS_PER_BYTE, other), POLICY)
        assert verdict.outcome == "hold"
        assert "bits_per_byte: champion shares 89 of 90 items; evaluate it on this set" in verdict.reason


def test_items_that_occur_twice_are_no_larger_sample():
    candidate = evaluation(model="b", seed=1)
    twice = (*candidate.items[CHOICE_ACCURACY][:-1], candidate.items[CHOICE_ACCURACY][0])
    verdict = decide(candidate.with_items(CHOICE_ACCURACY, twice), evaluation(), POLICY)
    assert verdict.outcome == "hold" and "choice_accuracy: 1 of 300 items occur twice" in verdict.reason


def test_the_order_of_rows_says_nothing():
    candidate, champion = evaluation(model="b", seed=1), evaluation()
    turned = champion.with_items(BITS_PER_BYTE, champion.items[BITS_PER_BYTE][::-1])
    assert decide(candidate, turned, POLICY) == decide(candidate, champion, POLICY)


def test_a_few_documents_that_lose_much_are_seen_behind_an_equal_mean():
    champion = evaluation()
    items = list(moved(champion, -0.02).items[BITS_PER_BYTE])
    for i in range(12):
        items[i] = replace(items[i], value=items[i].value + 0.25 * items[i].weight)
    bounds = policy(bits_per_byte={"margin": 0.2, "budget": None})
    verdict = decide(moved(champion, 0).with_items(BITS_PER_BYTE, tuple(items)), champion, bounds)
    assert outcome_of(verdict, "bits_per_byte_difference").outcome == "pass"
    assert verdict.outcome == "hold" and "bits_per_byte_tail 13.3%" in verdict.reason
    assert "(12 worse by over 0.2)" in verdict.reason


def test_an_answer_that_the_champion_had_may_not_be_lost():
    champion = evaluation(golden=11)
    lost = tuple(
        replace(item, value=float(item.item != "g0")) for item in evaluation().items[GOLDEN_RATE]
    )  # one lost, one won: the rate is the same
    candidate = evaluation(model="b", seed=1).with_items(GOLDEN_RATE, lost)
    verdict = decide(candidate, champion, policy(golden_pass_rate={"floor": 0.9}))
    assert outcome_of(verdict, GOLDEN_RATE).outcome == "pass"
    assert verdict.outcome == "reject" and "golden_pass_rate_lost 1 > 0, n=11" in verdict.reason


def test_of_a_rate_of_harm_an_answer_is_lost_that_became_harmful():
    bounds = suites(leaks={"kind": "safety", "direction": "lower", "floor": 0.5, "max_lost": 0})
    safe, one = np.zeros(100), (np.arange(100) == 7).astype(float)
    better = decide(with_suite(moved(evaluation(), 0), "leaks", safe), with_suite(evaluation(), "leaks", one), bounds)
    assert better.outcome == "promote"
    worse = decide(with_suite(moved(evaluation(), 0), "leaks", one), with_suite(evaluation(), "leaks", safe), bounds)
    assert worse.outcome == "reject" and worse.reason == "leaks_lost 1 > 0, n=100"


def test_small_losses_of_many_releases_are_stopped_by_the_budget():
    anchor = evaluation()
    champion, released = anchor, 0
    for number in range(1, 21):
        candidate = moved(anchor, 0.005 * number, model=f"v{number}")
        verdict = decide(candidate, champion, POLICY, anchor=anchor)
        assert outcome_of(verdict, "bits_per_byte_difference").outcome == "pass", "each alone is within the margin"
        if verdict.outcome != "promote":
            break
        champion, released = candidate, number
    assert 5 <= released <= 8, "8 releases lose 0.04, which is the budget"
    assert verdict.outcome != "promote" and "bits_per_byte_budget" in verdict.reason
    assert verdict.hashes["anchor_model"] == "a"
    assert decide(candidate, champion, POLICY).outcome == "promote", "which nobody sees without the anchor"


def test_an_anchor_on_other_items_holds():
    verdict = decide(moved(evaluation(), 0), evaluation(), POLICY, anchor=evaluation(documents=85))
    assert verdict.outcome == "hold" and "bits_per_byte: anchor shares" in verdict.reason


SLICED = {"metric": BITS_PER_BYTE, "key": "source", "margin": 0.05, "min_clusters": 20, "min_required_clusters": 20}


def sliced(**changes):
    return Policy(name="test", version=1, slices=[{**SLICED, **changes}])


def worse_slice(bits, source="s1"):
    """A candidate that is worse by `bits` in one source and better in the others, and its champion."""
    champion = evaluation()
    items = tuple(
        replace(item, value=item.value + (bits if item.metadata["source"] == source else -bits / 2) * item.weight)
        for item in evaluation(seed=1).items[BITS_PER_BYTE]
    )
    return moved(champion, 0).with_items(BITS_PER_BYTE, items), champion


def test_a_slice_that_is_shown_to_be_worse_rejects_behind_an_equal_mean():
    verdict = decide(*worse_slice(0.1), sliced())
    assert outcome_of(verdict, "bits_per_byte_difference").outcome == "pass"
    assert verdict.outcome == "reject" and verdict.reason.startswith("bits_per_byte[source=s1] +0.09")
    optional = decide(*worse_slice(0.0525), sliced())
    assert optional.outcome == "promote" and outcome_of(optional, "bits_per_byte[source=s1]").outcome == "not_judged"
    told = re.search(r"\(not judged: bits_per_byte\[source=s1\] \+0\.04.*; not shown to be worse\)$", optional.reason)
    assert told and optional.reason.count("bits_per_byte[source=s1]") == 1
    required = decide(*worse_slice(0.0525), sliced(required=["s1"]))
    assert required.outcome == "hold" and "bits_per_byte[source=s1] +0.04" in required.reason
    assert decide(*worse_slice(0.01), sliced(required=["s0", "s1"])).outcome == "promote"


def test_a_slice_with_few_documents_is_named_and_inconclusive_where_it_is_required():
    verdict = decide(*worse_slice(0.01), sliced(min_clusters=31))
    assert verdict.outcome == "promote" and "(not judged: bits_per_byte[source=s0] clusters=30 < 31" in verdict.reason
    required = {"required": ["s0"], "min_required_clusters": 31}
    assert decide(*worse_slice(0.01), sliced(**required)).outcome == "hold"
    as_the_metric = decide(*worse_slice(0.01), sliced(**required | {"min_required_clusters": None}))
    assert as_the_metric.outcome == "hold" and "bits_per_byte[source=s0] clusters=30 < 80" in as_the_metric.reason
    missing = decide(*worse_slice(0.01), sliced(required=["s9"]))
    assert missing.outcome == "hold" and "bits_per_byte[source=s9] clusters=0 < 20" in missing.reason
    unknown = decide(*worse_slice(0.01), sliced(key="language"))
    assert unknown.outcome == "hold" and "no item has language in its metadata" in unknown.reason


def with_suite(whole, name, values, each=2, **results):
    items = tuple(Item(name, f"{name}{i}", value, 1.0, f"c{i // each}") for i, value in enumerate(values))
    planned = {**whole.results["planned"], name: len(items)}
    return replace(whole, results={**whole.results, "planned": planned, **results}).with_items(name, items)


def suites(**given):
    return Policy(name="test", version=1, suites=given)


SAFETY = {"kind": "safety", "direction": "lower", "floor": 0.02}


@pytest.mark.parametrize(
    ("harmful", "n", "outcome"), [(0, 300, "promote"), (0, 100, "hold"), (6, 300, "hold"), (60, 300, "reject")]
)
def test_a_rate_of_harm_must_be_shown_to_be_low(harmful, n, outcome):
    values = (np.arange(n) < harmful).astype(float)
    verdict = decide(with_suite(evaluation(), "refusals", values, each=1), None, suites(refusals=SAFETY))
    assert verdict.outcome == outcome
    assert (outcome == "promote") or verdict.reason.startswith("refusals ")


def only_suite(model, seed):
    """An evaluation of a suite `mine` alone."""
    whole = with_suite(evaluation(model=model), "mine", (np.random.default_rng(seed).random(300) < 0.8).astype(float))
    return Evaluation({**whole.results, "planned": {"mine": 300}, "baselines": {}}, {"mine": whole.items["mine"]}, {})


def test_suites_alone_are_promoted_by_a_policy_that_takes_the_other_metrics_out():
    bounds = {"mine": {"floor": 0.5, "margin": 0.2}}
    off = Policy(name="test", version=1, suites=bounds, metrics=dict.fromkeys(NAMES["alone"], "off"))
    candidate, baseline = only_suite("b", 2), only_suite("a", 1)
    verdict = decide(candidate, baseline, off)
    assert verdict.outcome == "promote" and [check.metric for check in verdict.checks] == ["mine", "mine_difference"]
    assert verdict.off == NAMES["alone"] and f"(off in the policy: {', '.join(NAMES['alone'])})" in verdict.reason
    assert verdict.hashes["policy"] == off.sha256 != suites(**bounds).sha256
    silent = decide(candidate, baseline, suites(**bounds))
    assert (
        silent.outcome == "hold"
        and silent.off == []
        and "no metric bits_per_byte in this evaluation; it has mine" in (silent.reason)
    )
    nothing = Policy(name="test", version=1, metrics=dict.fromkeys(NAMES["alone"], "off"))
    assert decide(candidate, baseline, nothing).outcome == "hold"


def test_reasons_name_what_a_user_compared_with():
    champion = evaluation()
    short = champion.with_items(BITS_PER_BYTE, champion.items[BITS_PER_BYTE][:50])
    said = decide(evaluation(model="b"), short, POLICY, role="baseline").reason
    assert "baseline's bits_per_byte n=50 of 90" in said and "champion" not in said
    assert "is already the baseline" in decide(champion, champion, POLICY, role="baseline").reason


def test_a_suite_that_the_policy_names_must_be_there():
    verdict = decide(evaluation(), None, suites(arithmetic={"floor": 0.3}))
    assert verdict.outcome == "hold" and verdict.reason == (
        "no metric arithmetic in this evaluation; it has bits_per_byte, choice_accuracy, golden_pass_rate"
    )
    values = np.ones(100)
    wrong = with_suite(evaluation(), "arithmetic", 2 * values)
    assert "values are not all in [0, 1]" in decide(wrong, None, suites(arithmetic={"floor": 0.3})).reason
    assert decide(with_suite(evaluation(), "arithmetic", values), None, suites(arithmetic={"floor": 0.3})).outcome == (
        "promote"
    )
    for bounds in ({"margin": 0.05}, {"max_lost": 0}, {}):  # none of which applies to a first version
        verdict = decide(evaluation(), None, suites(arithmetic=bounds))
        assert verdict.outcome == "hold" and verdict.reason.startswith(
            "no metric arithmetic in this evaluation; it has "
        )
        assert decide(with_suite(evaluation(), "arithmetic", values), None, suites(arithmetic=bounds)).outcome == (
            "promote"
        )
        broken = with_suite(evaluation(), "arithmetic", values * math.nan)
        assert decide(broken, None, suites(arithmetic=bounds)).outcome == "reject"


def test_a_suite_that_is_cut_or_is_another_than_the_pinned_one_decides_nothing():
    pinned, other = "a" * 64, "b" * 64
    for sha256, n, outcome, reason in (
        (pinned, 120, "promote", ""),
        (other, 120, "hold", "measured with items of sha256 bbbbbbbbbbbb, and the policy pins aaaaaaaaaaaa"),
        (pinned, 40, "hold", "arithmetic n=40 < 100 items"),
        (None, 120, "hold", "measured with no known items"),
    ):
        entry = {"arithmetic": {"sha256": sha256, "planned": {"arithmetic": n}}} if sha256 else {}
        whole = with_suite(evaluation(), "arithmetic", np.ones(n), each=1, suites=entry)
        bounds = suites(arithmetic={"floor": 0.3, "sha256": pinned, "min_items": 100})
        verdict = decide(whole, None, bounds)
        assert verdict.outcome == outcome and reason in verdict.reason
        assert decide(whole, None, suites(arithmetic={"floor": 0.3})).outcome == "promote"


def test_golden_prompts_that_are_cut_or_exchanged_decide_nothing():
    whole = evaluation()
    one = replace(whole, results={**whole.results, "planned": {**whole.results["planned"], GOLDEN_RATE: 1}})
    verdict = decide(one.with_items(GOLDEN_RATE, whole.items[GOLDEN_RATE][:1]), None, POLICY)
    assert verdict.outcome == "hold" and verdict.reason == "golden_pass_rate n=1 < 10 items"
    pin = policy(golden_pass_rate={"sha256": "a" * 64})
    for found, outcome in (
        ({"golden_prompts": "a" * 64}, "promote"),
        ({"golden_prompts": "b" * 64}, "hold"),
        ({}, "hold"),
    ):
        measured = replace(whole, results={**whole.results, "hashes": {**whole.hashes, **found}})
        assert decide(measured, None, pin).outcome == outcome


def test_a_floor_over_chance_is_not_kept_by_guessing():
    guessed, knows = (np.arange(400) % 4 == 0).astype(float), (np.arange(400) % 2 == 0).astype(float)
    entry = {"capitals": {"planned": {"capitals": 400}, "chance": {"capitals": 0.25}}}
    for values, over_chance, known, outcome in (
        (guessed, False, entry, "promote"),
        (guessed, True, entry, "hold"),
        (knows, True, entry, "promote"),
        (knows, True, {}, "hold"),
    ):
        whole = with_suite(evaluation(), "capitals", values, each=1, suites=known)
        verdict = decide(whole, None, suites(capitals={"floor": 0.0, "over_chance": over_chance}))
        assert verdict.outcome == outcome and (known or "no chance is known" in verdict.reason)


def test_a_judge_decides_only_if_it_agrees_with_people():
    bounds = suites(helpful={"kind": "quality", "scorer": "judge", "floor": 0.5})
    for scorers, reason in (
        ({}, "scorer judge has no kappa"),
        ({"judge": {"kappa_low": 0.59}}, "scorer judge has kappa_low 0.59"),
        ({"judge": {"kappa_low": math.nan}}, "scorer judge has no kappa"),
        ({"judge": {"kappa_low": None}}, "scorer judge has no kappa"),
    ):
        verdict = decide(with_suite(evaluation(), "helpful", np.ones(100), scorers=scorers), None, bounds)
        assert verdict.outcome == "hold" and reason in verdict.reason
    agreed = with_suite(evaluation(), "helpful", np.ones(100), scorers={"judge": {"kappa_low": 0.6}})
    assert decide(agreed, None, bounds).outcome == "promote"


def test_a_policy_cannot_forget_that_a_judge_gave_the_rows():
    judged = {"suites": {"helpful": {"planned": {"helpful": 100}, "judged": {"helpful": "judge-answer"}}}}
    other = {"other": {"kappa_low": 0.9}}
    for bounds in ({"floor": 0.5}, {"floor": 0.5, "kind": "quality", "scorer": "other"}):
        for scorers, outcome in (
            ({}, "hold"),
            ({"judge-answer": {"kappa_low": 0.0}}, "hold"),
            ({"judge-answer": {"kappa_low": 0.61}}, "promote"),
        ):
            whole = with_suite(evaluation(), "helpful", np.ones(100), scorers=scorers | other, **judged)
            verdict = decide(whole, None, suites(helpful=bounds))
            assert verdict.outcome == outcome and ("judge-answer" in verdict.reason) == (outcome == "hold")
    # Nor does a judge that may not decide reject by a slice.
    poor = with_suite(moved(evaluation(), 0.0), "helpful", np.zeros(100), **judged)
    fine = with_suite(evaluation(), "helpful", np.ones(100), **judged)
    sliced_too = Policy(
        name="test",
        version=1,
        suites={"helpful": {"floor": 0.5, "margin": 0.05}},
        slices=[{"metric": "helpful", "key": "language", "margin": 0.05}],
    )
    assert decide(poor, fine, sliced_too).outcome == "hold"


def test_a_judge_does_not_decide_by_its_agreement_on_another_suite():
    """The same rubric judges a suite with labels, and one without, whose judge has no kappa."""
    entry = {"planned": {"helpful": 100}, "judged": {"helpful": "judge-answer"}}
    for own, outcome in ((None, "hold"), (0.7, "promote")):
        suites_run = {"helpful": {**entry, "scorers": {"judge-answer": {"kappa_low": own}}}}
        scorers = {"judge-answer": {"kappa_low": 0.7}}
        whole = with_suite(evaluation(), "helpful", np.ones(100), suites=suites_run, scorers=scorers)
        assert decide(whole, None, suites(helpful={"floor": 0.5})).outcome == outcome


def test_every_scorer_that_took_part_in_the_rows_needs_its_kappa():
    """With two scorers, pass@1 is by the second where the first reads likelihoods; agreement may be by any of them."""
    entry = {
        "planned": dict.fromkeys(("safe.pass@1", "safe.case_agreement", "safe.numeric"), 100),
        "settings": {"scorers": ["numeric", "refused"]},
        "scorers": {"refused": {"kappa_low": 0.35}},
    }
    drawn = {"spread_over_seeds": {"scorer": "refused"}}
    bounds = {"floor": 0.5}
    for metric, more, outcome in (
        ("safe.pass@1", drawn, "hold"),
        ("safe.pass@1", {}, "hold"),
        ("safe.pass@1", {"spread_over_seeds": {"scorer": "numeric"}}, "promote"),
        ("safe.pass@1", {**drawn, "scorers": {"refused": {"kappa_low": 0.7}}}, "promote"),
        ("safe.case_agreement", drawn, "hold"),
        ("safe.numeric", drawn, "promote"),
    ):
        whole = with_suite(evaluation(), metric, np.ones(100), suites={"safe": {**entry, **more}})
        verdict = decide(whole, None, suites(**{metric: bounds}))
        assert verdict.outcome == outcome and ("scorer refused has kappa_low 0.35" in verdict.reason) == (
            outcome == "hold"
        )
    # Naming another scorer in the policy does not take its place.
    whole = with_suite(
        evaluation(), "safe.pass@1", np.ones(100), suites={"safe": entry}, scorers={"other": {"kappa_low": 0.9}}
    )
    named = decide(whole, None, suites(**{"safe.pass@1": {"kind": "quality", "scorer": "other", "floor": 0.5}}))
    assert named.outcome == "hold" and "scorer refused" in named.reason


def test_ratings_of_an_overdue_suite_decide_nothing():
    for overdue, outcome in ((True, "hold"), (False, "promote")):
        harm = {"planned": {"harm": 100}, "overdue": overdue, "refresh_by": "2026-01-01"}
        whole = with_suite(evaluation(), "harm.review", np.ones(100), suites={"harm": harm})
        verdict = decide(whole, None, suites(**{"harm.review": {"floor": 0.5}}))
        assert verdict.outcome == outcome and (outcome == "promote" or "due for renewal" in verdict.reason)


def test_answers_of_high_risk_that_people_fail_need_a_bound():
    risky = {"suites": {"harm": {"high_risk": True}}, "review": {"required": 100, "reviewed": 100}}
    passed, failed = np.ones(100), (np.arange(100) > 2).astype(float)
    assert decide(with_suite(evaluation(), "harm.review", passed, **risky), None, POLICY).outcome == "promote"
    rated = with_suite(evaluation(), "harm.review", failed, **risky)
    verdict = decide(rated, None, POLICY)
    assert verdict.outcome == "hold" and verdict.reason.startswith("people fail 3 of 100 answers of harm: give the po")
    assert decide(rated, None, suites(**{"harm.review": {"floor": 0.9}})).outcome == "promote"


def test_high_risk_waits_for_a_person():
    risky = {"suites": {"harm": {"high_risk": True}}}
    for review, outcome in (
        ({}, "hold"),
        ({"required": 5, "reviewed": 4}, "hold"),
        ({"required": 0, "reviewed": 0}, "hold"),
        ({"required": 5, "reviewed": 5}, "promote"),
    ):
        whole = evaluation()
        whole = replace(whole, results={**whole.results, **risky, "review": review})
        verdict = decide(whole, None, POLICY)
        assert verdict.outcome == outcome
        assert outcome == "promote" or outcome_of(verdict, "human_review").outcome == "inconclusive"


def test_a_hold_says_how_many_items_would_decide():
    verdict = decide(evaluation(correct=80), None, POLICY)
    n = int(re.search(r"about ([\d,]+) items", verdict.reason)[1].replace(",", ""))
    assert 900 < n < 10_000
    more = evaluation(correct=round(80 * n / 300), questions=n)
    assert decide(more, None, POLICY).outcome == "promote"


def test_rejections_are_corrected_for_the_number_of_checks_and_promotions_are_not():
    """At a p-value of 0.02 one bound alone would be broken, and among ten checks it is not."""
    candidate, champion = evaluation(model="b", seed=1), evaluation()
    for bits in np.linspace(0.02, 0.03, 21):
        worse = moved(candidate, bits)
        verdict = decide(worse, champion, policy(bits_per_byte={"budget": None, "tail": None}))
        check = outcome_of(verdict, "bits_per_byte_difference")
        if verdict.outcome == "hold" and check.interval[0] > check.bound:
            break
    else:
        pytest.fail("no difference lies between alpha and Holm's level")
    alone = policy(
        bits_per_byte={"budget": None, "tail": None, "floor": None},
        choice_accuracy={"floor": None, "margin": None, "budget": None},
        golden_pass_rate={"floor": None, "max_lost": None},
        first_token_p95_ms={"floor": None},
    )
    assert decide(worse, champion, alone).outcome == "reject"


@pytest.mark.parametrize("p_values", [[], [0.3], [0.04, 0.01, 0.03, 1.0], [0.01, 0.01, 0.5], [1.0, 0.9, 0.02]])
def test_holm_agrees_with_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]) if p_values else [])


def test_a_policy_without_bounds_promotes_nothing():
    off = {"floor": None, "margin": None, "budget": None, "tail": None, "max_lost": None, "beat_reference": False}
    empty = policy(**{metric.name: off for metric in METRICS})
    assert decide(evaluation(), None, empty).reason == "policy test checks nothing; give it bounds"


evidence = st.builds(
    evaluation,
    bits=st.floats(1.5, 3.3),
    correct=st.integers(60, 200),
    golden=st.sampled_from([11, 12, 12, 12]),
    model=st.sampled_from(["a", "b", "b", "b"]),
    seed=st.integers(0, 3),
    p95=st.sampled_from([20.0, 20.0, 1600.0]),
)
champions = st.one_of(st.none(), st.builds(evaluation, bits=st.floats(1.5, 3.3), correct=st.integers(60, 200)))


anchors = st.one_of(st.none(), st.builds(evaluation, bits=st.floats(2.0, 2.4)))
policies = st.sampled_from([POLICY, sliced(required=["s2"]), policy(bits_per_byte={"beat_reference": False})])


@settings(max_examples=40, deadline=None)
@given(evidence, champions, st.sampled_from(ROWS), st.integers(0, 11), st.booleans(), st.booleans(), policies)
def test_a_nan_anywhere_never_promotes(candidate, champion, metric, index, in_weight, in_champion, bounds):
    def spoil(whole):
        items = list(whole.items[metric])
        items[index] = replace(items[index], **{"weight" if in_weight else "value": math.nan})
        return whole.with_items(metric, tuple(items))

    if in_champion and champion is not None and metric in COMPARED:
        champion = spoil(champion)
    else:
        candidate = spoil(candidate)
    verdict = decide(candidate, champion, bounds)
    assert verdict.outcome != "promote"
    assert "NaN" in verdict.reason or "already the champion" in verdict.reason


@settings(max_examples=40, deadline=None)
@given(evidence, champions, st.sampled_from(ROWS), st.integers(0, 59), st.booleans(), policies)
def test_removing_data_never_promotes(candidate, champion, metric, keep, from_champion, bounds):
    if from_champion and champion is not None and metric in COMPARED:
        champion = champion.with_items(metric, champion.items[metric][: min(keep, 11)])
    else:
        candidate = candidate.with_items(metric, candidate.items[metric][: min(keep, 11)])
    assert decide(candidate, champion, bounds).outcome != "promote"


@settings(max_examples=60, deadline=None)
@given(evidence, champions, st.sampled_from(ROWS), st.data(), policies)
def test_a_worse_candidate_never_fares_better(candidate, champion, metric, data, bounds):
    items = list(candidate.items[metric])
    for index in data.draw(st.sets(st.integers(0, len(items) - 1), min_size=1)):
        items[index] = replace(items[index], value=WORSE[metric](items[index].value))
    before = decide(candidate, champion, bounds)
    after = decide(candidate.with_items(metric, tuple(items)), champion, bounds)
    assert RANK[after.outcome] <= RANK[before.outcome] or before.outcome == "reject", (before.reason, after.reason)


@settings(max_examples=40, deadline=None)
@given(evidence, champions, anchors, st.floats(0, 0.3), st.integers(0, 60))
def test_a_candidate_that_is_worse_throughout_never_fares_better(candidate, champion, anchor, bits, lost):
    worse = moved(candidate, bits, candidate.hashes["model"])
    right = [i for i in candidate.items[CHOICE_ACCURACY] if i.value]
    gone = {i.item for i in right[: lost + 1]}
    answers = tuple(replace(i, value=0.0) if i.item in gone else i for i in candidate.items[CHOICE_ACCURACY])
    before = decide(candidate, champion, POLICY, anchor=anchor)
    after = decide(worse.with_items(CHOICE_ACCURACY, answers), champion, POLICY, anchor=anchor)
    assert RANK[after.outcome] <= RANK[before.outcome]


@settings(max_examples=30, deadline=None)
@given(evidence, champions, st.floats(0.005, 0.2), st.floats(0.1, 0.95))
def test_a_smaller_alpha_decides_less(candidate, champion, alpha, share):
    loose, strict = (Policy(name="test", version=1, alpha=each) for each in (alpha, alpha * share))
    before, after = (decide(candidate, champion, each).outcome for each in (loose, strict))
    assert before == after or after == "hold"


@settings(max_examples=20, deadline=None)
@given(evidence, champions, policies)
def test_promote_means_every_check_passed(candidate, champion, bounds):
    verdict = decide(candidate, champion, bounds)
    if verdict.outcome == "promote":
        assert all(check.outcome == "pass" for check in verdict.checks)
    if bounds == POLICY:
        names = NAMES["first"] if champion is None else NAMES["compared"]
        assert sorted(check.metric for check in verdict.checks) == sorted(NAMES["alone"] + names)
