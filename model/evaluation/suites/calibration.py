"""Calibration: whether a model is right as often as it is confident (Naeini et al., 2015; arXiv 1706.04599)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in [low, high); the last bin holds 1.0 too."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean confidence; None without answers."""
    accuracy: float | None


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """Return the reliability table in bins of equal width. ValueError for a confidence outside [0, 1], or NaN."""
    if len(confidences) != len(right) or bins < 1:
        raise ValueError(f"{len(confidences)} confidences and {len(right)} answers, {bins} bins")
    members: list[list[int]] = [[] for _ in range(bins)]
    for index, confidence in enumerate(confidences):
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence {confidence} does not lie between 0 and 1")
        members[min(math.floor(confidence * bins), bins - 1)].append(index)
    return [
        Bin(
            place / bins,
            (place + 1) / bins,
            len(inside),
            sum(confidences[index] for index in inside) / len(inside) if inside else None,
            sum(right[index] for index in inside) / len(inside) if inside else None,
        )
        for place, inside in enumerate(members)
    ]


def expected_calibration_error(table: Sequence[Bin]) -> float | None:
    """Return the mean distance between confidence and accuracy, weighted by the bins' answers; None without answers."""
    n = sum(each.n for each in table)
    if not n:
        return None
    gaps = (
        each.n * abs(each.confidence - each.accuracy)
        for each in table
        if each.confidence is not None and each.accuracy is not None
    )
    return sum(gaps) / n
