"""The gate: a pure decision over a candidate's evidence, the champion's, and the bounds.

Every check ends in one of three ways. It passes or fails where the whole interval lies on one side of the bound; where
the interval straddles it, or the data is not all there, it is inconclusive. One failure rejects, one inconclusive
check holds, and only a pass of all promotes. So the chance of a wrong promote or reject is that of an interval
missing its true value, which Bonferroni's correction keeps below 1 - confidence over all intervals together.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sluice.core import intervals
from sluice.core.intervals import Interval
from sluice.model.config import GateConfig
from sluice.model.evaluation.evidence import (
    BITS_PER_BYTE,
    CHOICE_ACCURACY,
    GOLDEN_RATE,
    Evaluation,
    Item,
    finite_or_none,
)
from sluice.model.evaluation.verdict import Check, Verdict

LATENCY = "first_token_p95_ms"
BITS_DIFFERENCE = "bits_per_byte_difference"
ACCURACY_DIFFERENCE = "choice_accuracy_difference"

Outcome = Literal["pass", "fail", "inconclusive"]


def decide(candidate: Evaluation, champion: Evaluation | None, bounds: GateConfig) -> Verdict:
    """Promote, hold or reject `candidate`; `champion` is None while nothing serves yet."""
    # Counted from the rules, never from the data at hand: losing data must not narrow an interval.
    tests = 2 if champion is None else 4
    confidence = intervals.bonferroni(bounds.confidence, tests)
    checks = [
        _bits_check(candidate, bounds, confidence),
        _accuracy_check(candidate, bounds, confidence),
        _golden_check(candidate, bounds),
        _latency_check(candidate, bounds),
    ]
    if champion is not None:
        checks += [
            _bits_difference_check(candidate, champion, bounds, confidence),
            _accuracy_difference_check(candidate, champion, bounds, confidence),
        ]
    outcome, reason = _conclude(checks)
    if champion is not None and champion.hashes["model"] == candidate.hashes["model"]:
        outcome, reason = "hold", f"model {candidate.hashes['model'][:12]} is already the champion"
    hashes = dict(candidate.hashes)
    if champion is not None:
        hashes |= {f"champion_{name}": value for name, value in champion.hashes.items()}
    return Verdict(
        outcome=outcome,
        reason=reason,
        checks=checks,
        confidence=bounds.confidence,
        correction=f"Bonferroni over {tests} intervals: each at {confidence:.2%}",
        hashes=hashes,
        is_first_version=champion is None,
    )


def _conclude(checks: Sequence[Check]) -> tuple[Literal["promote", "hold", "reject"], str]:
    failed = [check.reason for check in checks if check.outcome == "fail"]
    if failed:
        return "reject", "; ".join(failed)
    open_checks = [check.reason for check in checks if check.outcome == "inconclusive"]
    if open_checks:
        return "hold", "; ".join(open_checks)
    return "promote", "; ".join(check.reason for check in checks)


def _unusable(evaluation: Evaluation, metric: str, who: str, min_samples: int) -> tuple[Outcome, str] | None:
    """Why these rows cannot be judged, or None where they can. NaN outranks missing data."""
    items = evaluation.items.get(metric, ())
    planned = evaluation.planned.get(metric, 0)
    broken = sum(not (math.isfinite(i.value) and math.isfinite(i.weight) and i.weight > 0) for i in items)
    if broken:
        return "fail", f"{who}{metric} is NaN on {broken} of {len(items)} items"
    if len(items) != planned:
        return "inconclusive", f"{who}{metric} n={len(items)} of {planned} planned items"
    if len(items) < min_samples:
        return "inconclusive", f"{who}{metric} n={len(items)} < {min_samples} samples"
    return None


def _unjudged(metric: str, n: int, bound: float, why: tuple[Outcome, str]) -> Check:
    return Check(metric=metric, candidate=None, n=n, bound=bound, outcome=why[0], reason=why[1])


def _judged(
    metric: str,
    value: float,
    interval: Interval,
    bound: float,
    *,
    below: bool,
    n: int,
    against: tuple[float, float] | None = None,
    note: str = "",
) -> Check:
    """Pass where the whole interval lies on the good side of `bound` (below it, if `below`), fail where on the bad.

    `against`: the candidate's and the champion's own values, where `value` is their difference.
    """
    under, over = interval.high < bound, interval.low > bound
    good, bad = (under, over) if below else (over, under)
    if any(math.isnan(number) for number in (value, *interval)):
        good, bad = False, True
    outcome: Outcome = "pass" if good else "fail" if bad else "inconclusive"
    relation = "<" if under else ">" if over else "straddles"
    sign = "" if against is None else "+"
    pair = f" ({against[0]:.3f} against {against[1]:.3f})" if against else ""
    measured = f"{metric} {value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
    return Check(
        metric=metric,
        candidate=finite_or_none(against[0] if against else value),
        baseline=finite_or_none(against[1]) if against else None,
        n=n,
        interval=(finite_or_none(interval.low), finite_or_none(interval.high)),
        bound=bound,
        outcome=outcome,
        reason=f"{measured} {relation} {bound:{sign}.3f}, n={n}{pair}{note}",
    )


def _columns(items: Sequence[Item]) -> tuple[intervals.Floats, intervals.Floats]:
    """values [items], weights [items], in the order of the item's hash so that a file's order says nothing."""
    ordered = sorted(items, key=lambda item: item.item)
    return np.array([i.value for i in ordered]), np.array([i.weight for i in ordered])


def _bits_check(candidate: Evaluation, bounds: GateConfig, confidence: float) -> Check:
    items = candidate.items.get(BITS_PER_BYTE, ())
    why = _unusable(candidate, BITS_PER_BYTE, "", bounds.min_samples)
    if why:
        return _unjudged(BITS_PER_BYTE, len(items), bounds.max_bits_per_byte, why)
    bits, sizes = _columns(items)
    interval = intervals.ratio_interval(bits, sizes, confidence, bounds.resamples, bounds.seed)
    value = float(bits.sum() / sizes.sum())
    return _judged(BITS_PER_BYTE, value, interval, bounds.max_bits_per_byte, below=True, n=len(items))


def _accuracy_check(candidate: Evaluation, bounds: GateConfig, confidence: float) -> Check:
    items = candidate.items.get(CHOICE_ACCURACY, ())
    bound = 1 / candidate.choices + bounds.min_choice_accuracy_over_chance
    why = _unusable(candidate, CHOICE_ACCURACY, "", bounds.min_samples)
    if why:
        return _unjudged(CHOICE_ACCURACY, len(items), bound, why)
    correct = round(sum(item.value for item in items))
    interval = intervals.wilson_interval(correct, len(items), confidence)
    return _judged(CHOICE_ACCURACY, correct / len(items), interval, bound, below=False, n=len(items))


def _golden_check(candidate: Evaluation, bounds: GateConfig) -> Check:
    """The golden prompts are the whole set, not a sample of one: their rate is exact and has no interval."""
    items, bound = candidate.items.get(GOLDEN_RATE, ()), bounds.min_golden_pass_rate
    why = _unusable(candidate, GOLDEN_RATE, "", min_samples=1)
    if why:
        return _unjudged(GOLDEN_RATE, len(items), bound, why)
    rate = sum(item.value for item in items) / len(items)
    outcome: Outcome = "pass" if rate >= bound else "fail"
    reason = f"{GOLDEN_RATE} {rate:.3f} {'>=' if rate >= bound else '<'} {bound:.3f}, n={len(items)}"
    return Check(metric=GOLDEN_RATE, candidate=rate, n=len(items), bound=bound, outcome=outcome, reason=reason)


def _latency_check(candidate: Evaluation, bounds: GateConfig) -> Check:
    """A guard against a broken build, by the sample's p95: the rollout compares latency under real load."""
    value, n, bound = candidate.first_token_p95_ms, candidate.first_token_samples, bounds.max_first_token_p95_ms
    if n == 0 or n < bounds.min_samples:
        why: tuple[Outcome, str] = ("inconclusive", f"{LATENCY} n={n} < {max(bounds.min_samples, 1)} samples")
        return _unjudged(LATENCY, n, bound, why)
    if not math.isfinite(value):
        return _unjudged(LATENCY, n, bound, ("fail", f"{LATENCY} is NaN, n={n}"))
    outcome: Outcome = "pass" if value <= bound else "fail"
    reason = f"{LATENCY} {value:.0f} ms {'<=' if value <= bound else '>'} {bound:.0f} ms, n={n}"
    return Check(metric=LATENCY, candidate=value, n=n, bound=bound, outcome=outcome, reason=reason)


def _unpaired(candidate: Evaluation, champion: Evaluation, metric: str, min_samples: int) -> tuple[Outcome, str] | None:
    """Why two models' rows cannot be compared, or None. The same items with the same weights are paired data."""
    found = [_unusable(candidate, metric, "", min_samples), _unusable(champion, metric, "champion's ", min_samples)]
    reasons = sorted((why for why in found if why), key=lambda why: why[0] != "fail")
    if reasons:
        return reasons[0]
    keys = [sorted((i.item, i.weight) for i in evaluation.items[metric]) for evaluation in (candidate, champion)]
    if keys[0] != keys[1]:
        shared = len(set(keys[0]) & set(keys[1]))
        return "inconclusive", f"{metric}: champion shares {shared} of {len(keys[0])} items; evaluate it on this set"
    return None


def _bits_difference_check(candidate: Evaluation, champion: Evaluation, bounds: GateConfig, confidence: float) -> Check:
    """Non-inferiority: the paired difference's upper end must stay below the margin."""
    bound, n = bounds.max_bits_per_byte_increase, len(candidate.items.get(BITS_PER_BYTE, ()))
    why = _unpaired(candidate, champion, BITS_PER_BYTE, bounds.min_samples)
    if why:
        return _unjudged(BITS_DIFFERENCE, n, bound, why)
    bits, sizes = _columns(candidate.items[BITS_PER_BYTE])
    baseline, _ = _columns(champion.items[BITS_PER_BYTE])
    interval = intervals.ratio_interval(bits - baseline, sizes, confidence, bounds.resamples, bounds.seed)
    difference = float((bits - baseline).sum() / sizes.sum())
    against = (float(bits.sum() / sizes.sum()), float(baseline.sum() / sizes.sum()))
    return _judged(BITS_DIFFERENCE, difference, interval, bound, below=True, n=n, against=against)


def _accuracy_difference_check(
    candidate: Evaluation, champion: Evaluation, bounds: GateConfig, confidence: float
) -> Check:
    """Non-inferiority: the paired difference's lower end must stay above minus the margin."""
    bound, n = -bounds.max_choice_accuracy_drop, len(candidate.items.get(CHOICE_ACCURACY, ()))
    why = _unpaired(candidate, champion, CHOICE_ACCURACY, bounds.min_samples)
    if why:
        return _unjudged(ACCURACY_DIFFERENCE, n, bound, why)
    ours = _columns(candidate.items[CHOICE_ACCURACY])[0] > 0.5
    theirs = _columns(champion.items[CHOICE_ACCURACY])[0] > 0.5
    candidate_only, champion_only = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    interval = intervals.paired_rate_interval(candidate_only, champion_only, n, confidence)
    difference = (candidate_only - champion_only) / n
    against = (float(ours.mean()), float(theirs.mean()))
    note = f", McNemar p={intervals.mcnemar_exact(candidate_only, champion_only):.3f}"
    return _judged(ACCURACY_DIFFERENCE, difference, interval, bound, below=False, n=n, against=against, note=note)
