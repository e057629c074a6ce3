"""The gate's rules, and the laws they obey whatever the data."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.config import GateConfig
from sluice.model.evaluation.gate import decide
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.results import Evaluation, Item

BITS_PER_BYTE, CHOICE_ACCURACY, GOLDEN_RATE = "bits_per_byte", "choice_accuracy", "golden_pass_rate"
WORSE = {BITS_PER_BYTE: lambda value: value * 1.1, CHOICE_ACCURACY: lambda value: 0.0, GOLDEN_RATE: lambda value: 0.0}
"""A worse value of one item, by metric with items."""
ROWS = sorted(WORSE)
COMPARED = [metric.name for metric in METRICS if metric.compare]
"""Metrics whose check reads the champion's items."""
BOUNDS = GateConfig(resamples=400, max_choice_accuracy_drop=0.1)
RANK = {"reject": 0, "hold": 1, "promote": 2}


def evaluation(bits=2.2, correct=150, golden=12, model="a", seed=0, documents=60, questions=300, p95=20.0, samples=64):
    """Evidence whose bits per byte scatter about `bits`, with `correct` right answers."""
    generator = np.random.default_rng(99)
    sizes = generator.integers(500, 8000, documents).astype(float)
    level = bits + generator.normal(0, 0.3, documents) + np.random.default_rng(seed).normal(0, 0.01, documents)
    rows = {
        BITS_PER_BYTE: [Item(BITS_PER_BYTE, f"d{i}", level[i] * sizes[i], sizes[i]) for i in range(documents)],
        CHOICE_ACCURACY: [Item(CHOICE_ACCURACY, f"q{i}", float(i < correct)) for i in range(questions)],
        GOLDEN_RATE: [Item(GOLDEN_RATE, f"g{i}", float(i < golden)) for i in range(12)],
    }
    return Evaluation(
        results={
            "hashes": {"model": model, "evaluation_set": "s"},
            "planned": {metric: len(items) for metric, items in rows.items()},
            "choices": 4,
        },
        items={metric: tuple(items) for metric, items in rows.items()},
        timings={"first_token_p95_ms": p95, "first_token_samples": samples},
    )


def correction(intervals):
    return f"Bonferroni over {intervals} intervals: each at {1 - 0.05 / intervals:.2%}"


def outcome_of(verdict, metric):
    return next(check for check in verdict.checks if check.metric == metric)


def test_every_metric_with_items_is_covered_here():
    assert [metric.name for metric in METRICS if metric.summarize] == ROWS
    assert len(METRICS) >= 4 and len(COMPARED) >= 2


def test_a_sound_first_version_is_promoted():
    verdict = decide(evaluation(), None, BOUNDS)
    assert verdict.outcome == "promote" and verdict.is_first_version
    assert [check.outcome for check in verdict.checks] == ["pass"] * len(METRICS)
    assert verdict.correction == correction(sum(metric.intervals for metric in METRICS))


def test_an_equal_model_is_promoted_over_the_champion():
    verdict = decide(evaluation(model="b", seed=1), evaluation(), BOUNDS)
    assert verdict.outcome == "promote" and not verdict.is_first_version
    assert verdict.correction == correction(sum(metric.intervals + metric.paired_intervals for metric in METRICS))
    assert verdict.hashes["model"] == "b" and verdict.hashes["champion_model"] == "a"
    assert outcome_of(verdict, "choice_accuracy_difference").baseline == 0.5


def test_the_champion_itself_is_held():
    verdict = decide(evaluation(), evaluation(), BOUNDS)
    assert verdict.outcome == "hold" and "is already the champion" in verdict.reason


def test_an_untrained_model_is_rejected_with_the_comparison():
    verdict = decide(evaluation(bits=7.9, correct=74, golden=0), None, BOUNDS)
    assert verdict.outcome == "reject"
    assert verdict.reason.startswith("bits_per_byte 7.9") and "> 3.000, n=60" in verdict.reason
    assert "golden_pass_rate 0.000 < 1.000, n=12" in verdict.reason


@pytest.mark.parametrize(
    ("change", "metric", "outcome"),
    [
        ({"bits": 2.99}, BITS_PER_BYTE, "hold"),
        ({"correct": 85}, CHOICE_ACCURACY, "hold"),
        ({"correct": 40}, CHOICE_ACCURACY, "reject"),
        ({"golden": 11}, GOLDEN_RATE, "reject"),
        ({"p95": BOUNDS.max_first_token_p95_ms + 1}, "first_token_p95_ms", "reject"),
        ({"p95": math.nan}, "first_token_p95_ms", "reject"),
        ({"samples": 0, "p95": math.nan}, "first_token_p95_ms", "hold"),
        ({"samples": 16}, "first_token_p95_ms", "hold"),
        ({"documents": 12}, BITS_PER_BYTE, "hold"),
        ({"questions": 20, "correct": 20}, CHOICE_ACCURACY, "hold"),
    ],
)
def test_absolute_bounds(change, metric, outcome):
    verdict = decide(evaluation(**change), None, BOUNDS)
    assert verdict.outcome == outcome
    assert outcome_of(verdict, metric).outcome == {"hold": "inconclusive", "reject": "fail"}[outcome]
    assert metric in verdict.reason


def test_a_model_worse_than_the_champion_is_rejected_within_the_absolute_bounds():
    verdict = decide(evaluation(bits=2.3, model="b", seed=1), evaluation(), BOUNDS)
    assert verdict.outcome == "reject"
    assert outcome_of(verdict, BITS_PER_BYTE).outcome == "pass"
    assert verdict.reason.startswith("bits_per_byte_difference +0.099 [") and "> +0.020, n=60 (2." in verdict.reason


def test_a_champion_measured_on_other_items_is_no_comparison():
    champion = evaluation()
    renamed = tuple(replace(item, item=f"x{item.item}") for item in champion.items[BITS_PER_BYTE])
    verdict = decide(evaluation(model="b"), champion.with_items(BITS_PER_BYTE, renamed), BOUNDS)
    assert verdict.outcome == "hold"
    assert "champion shares 0 of 60 items; evaluate it on this set" in verdict.reason


def test_the_order_of_rows_says_nothing():
    candidate, champion = evaluation(model="b", seed=1), evaluation()
    turned = champion.with_items(BITS_PER_BYTE, champion.items[BITS_PER_BYTE][::-1])
    assert decide(candidate, turned, BOUNDS) == decide(candidate, champion, BOUNDS)


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


@settings(max_examples=40, deadline=None)
@given(evidence, champions, st.sampled_from(ROWS), st.integers(0, 11), st.booleans(), st.booleans())
def test_a_nan_anywhere_never_promotes(candidate, champion, metric, index, in_weight, in_champion):
    def spoil(whole):
        items = list(whole.items[metric])
        items[index] = replace(items[index], **{"weight" if in_weight else "value": math.nan})
        return whole.with_items(metric, tuple(items))

    if in_champion and champion is not None and metric in COMPARED:
        champion = spoil(champion)
    else:
        candidate = spoil(candidate)
    verdict = decide(candidate, champion, BOUNDS)
    assert verdict.outcome != "promote"
    assert "NaN" in verdict.reason or "already the champion" in verdict.reason


@settings(max_examples=40, deadline=None)
@given(evidence, champions, st.sampled_from(ROWS), st.integers(0, 59), st.booleans())
def test_removing_data_never_promotes(candidate, champion, metric, keep, from_champion):
    if from_champion and champion is not None and metric in COMPARED:
        champion = champion.with_items(metric, champion.items[metric][:keep])
    else:
        candidate = candidate.with_items(metric, candidate.items[metric][: min(keep, 11)])
    assert decide(candidate, champion, BOUNDS).outcome != "promote"


@settings(max_examples=40, deadline=None)
@given(evidence, champions, st.sampled_from(ROWS), st.data())
def test_a_worse_candidate_never_fares_better(candidate, champion, metric, data):
    items = list(candidate.items[metric])
    for index in data.draw(st.sets(st.integers(0, len(items) - 1), min_size=1)):
        items[index] = replace(items[index], value=WORSE[metric](items[index].value))
    before = decide(candidate, champion, BOUNDS)
    after = decide(candidate.with_items(metric, tuple(items)), champion, BOUNDS)
    assert RANK[after.outcome] <= RANK[before.outcome]


@settings(max_examples=20, deadline=None)
@given(evidence, champions)
def test_promote_means_every_check_passed(candidate, champion):
    verdict = decide(candidate, champion, BOUNDS)
    if verdict.outcome == "promote":
        assert all(check.outcome == "pass" for check in verdict.checks)
    assert len(verdict.checks) == len(METRICS) + (0 if champion is None else len(COMPARED))
