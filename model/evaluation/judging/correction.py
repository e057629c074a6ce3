"""Rates that a judge measured, corrected for its errors, with the uncertainty of both samples in the interval.

The judge passes a share p of the answers. Its sensitivity q1 and specificity q0 come from a calibration sample that
people labelled too. The corrected rate is (p + q0 - 1) / (q0 + q1 - 1) (Rogan and Gladen, 1978), and its variance that
of "How to Correctly Report LLM-as-a-Judge Evaluations" (arXiv 2511.21140), with Agresti-Coull counts in each sample.
The paper divides by the estimated q0 + q1 - 1, which covers 84 % instead of 95 % for weak judges and small calibration
samples; here the same test is inverted without the division (Fieller, 1954).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sluice.core.clustered import design_effect
from sluice.core.intervals import Interval


@dataclass(frozen=True)
class Counts:
    """Successes among trials. Not whole numbers where clusters reduce them to their effective size."""

    successes: float
    trials: float

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials < math.inf:
            raise ValueError(f"{self.successes} successes in {self.trials} trials: give 0 to as many as there are")


@dataclass(frozen=True)
class Calibration:
    """A judge compared with people on a sample of the same kind of answers."""

    sensitivity: Counts
    """Answers that the judge passes, among those that people pass."""
    specificity: Counts
    """Answers that the judge fails, among those that people fail."""


@dataclass(frozen=True)
class CorrectedRate:
    """A rate corrected for the judge's errors."""

    value: float
    """Between 0 and 1; NaN where the judge is no better than chance in the calibration sample."""
    interval: Interval
    judged: float
    """The judge's own rate, uncorrected."""


def effective_counts(passed: Sequence[float], clusters: Sequence[str] | None = None) -> Counts:
    """Count successes, a value between 0 and 1 as that share of one.

    Where items share clusters, both counts are divided by the design effect (Kish, 1965).
    """
    values = np.asarray(passed, dtype=np.float64)
    n = len(values)
    if clusters is None or n == 0:
        return Counts(float(values.sum()), n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} clusters for {n} items: name one for each item")
    groups = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
    rate = values.mean()
    effect = design_effect(values - rate, float(n * rate * (1 - rate)), groups)
    return Counts(float(values.sum() / effect), n / effect)


def calibrate(judged: Sequence[bool], people: Sequence[bool], clusters: Sequence[str] | None = None) -> Calibration:
    """Count a judge's errors against people's labels of the same items. An error of the judge is a wrong label."""
    if len(judged) != len(people):
        raise ValueError(f"{len(judged)} labels of the judge, but {len(people)} of people: give one of each per item")

    def counts(label: bool) -> Counts:
        chosen = [number for number, passed in enumerate(people) if bool(passed) is label]
        right = [bool(judged[number]) is label for number in chosen]
        return effective_counts(right, [clusters[number] for number in chosen] if clusters else None)

    return Calibration(sensitivity=counts(True), specificity=counts(False))


def corrected_rate(judged: Counts, calibration: Calibration, confidence: float = 0.95) -> CorrectedRate:
    """Correct the share of answers that a judge passed. [0, 1] where the samples cannot bound the rate.

    They cannot where the judge is not shown to be better than chance, and where it passes less than the errors of the
    calibration sample allow.
    """
    from scipy.special import ndtri

    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    p, p_variance = _adjusted(judged, z2)
    q0, q0_variance = _adjusted(calibration.specificity, z2)
    q1, q1_variance = _adjusted(calibration.sensitivity, z2)
    # The rates r with (p + q0 - 1 - r (q0 + q1 - 1))^2 <= z^2 (var p + (1 - r)^2 var q0 + r^2 var q1).
    surplus, informed = p + q0 - 1, q0 + q1 - 1
    square = informed**2 - z2 * (q0_variance + q1_variance)
    linear = surplus * informed - z2 * q0_variance
    constant = surplus**2 - z2 * (p_variance + q0_variance)
    interval = Interval(0.0, 1.0)
    if square > 0 and informed > 0:
        root = math.sqrt(max(linear**2 - square * constant, 0.0))
        low, high = (linear - root) / square, (linear + root) / square
        if low <= 1 and high >= 0:
            interval = Interval(max(low, 0.0), min(high, 1.0))
    return CorrectedRate(_point(judged, calibration), interval, _share(judged))


def _adjusted(counts: Counts, z2: float) -> tuple[float, float]:
    """Return the Agresti-Coull estimate of a proportion, and its variance."""
    n = counts.trials + z2
    share = (counts.successes + z2 / 2) / n
    return share, share * (1 - share) / n


def _point(judged: Counts, calibration: Calibration) -> float:
    p, q0, q1 = map(_share, (judged, calibration.specificity, calibration.sensitivity))
    return min(max((p + q0 - 1) / (q0 + q1 - 1), 0.0), 1.0) if q0 + q1 > 1 else math.nan


def _share(counts: Counts) -> float:
    return counts.successes / counts.trials if counts.trials else math.nan
