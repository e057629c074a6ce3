"""Pass rates of every rule and the spread of its score, from the scores that refine wrote beside its decisions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sluice.core.arrow import numbers
from sluice.data.card.folder import Folder, columns_of, rows
from sluice.data.quality.rules import LANGUAGE, RULES, Rule

if TYPE_CHECKING:
    import pyarrow as pa

BINS = 38


@dataclass(frozen=True)
class Passed:
    """Documents that pass of those that were asked."""

    passed: int = 0
    asked: int = 0


@dataclass(frozen=True)
class Spread:
    """A histogram of one score; the last bin also holds what lies beyond it, and the first what lies below."""

    edges: list[float]
    """[bins + 1]"""
    counts: list[int]
    """[bins]"""
    log: bool
    unknown: int = 0
    """Documents whose score is no number."""


@dataclass(frozen=True)
class RulePasses:
    """One rule asked alone of every document that has scores."""

    rule: Rule
    threshold: Any
    total: Passed
    by_source: dict[str, Passed]
    by_language: dict[str, Passed]
    spread: Spread | None
    """None for the rule of languages."""


def rule_passes(folder: Folder) -> list[RulePasses]:
    """Every rule in force, in the order in which refine asks them; empty where the folder holds no scores.

    Memory: 4 bytes a document and rule.
    """
    scored = _scored(folder.scores)
    bounds = [(rule, threshold) for rule, threshold in in_force(folder.thresholds) if rule.score in scored]
    if not bounds:
        return []
    names = sorted({rule.score for rule, _ in bounds if rule is not LANGUAGE})
    batches = [batch for path in folder.scores for batch in rows(path, ["source", "language", *names])]
    sources, of_source = _coded(_strings(batches, "source"))
    languages, of_language = _coded(_strings(batches, "language"))
    found = []
    for rule, threshold in bounds:
        if rule is LANGUAGE:
            wanted = np.array([language in threshold for language in languages], np.bool_)
            passed, spread = wanted[of_language] if len(languages) else np.empty(0, np.bool_), None
        else:
            values = _numbers(batches, rule.score)
            limits = [_first_beyond(other, limit) for other, limit in bounds if other.score == rule.score]
            passed, spread = passing(values, float(threshold), rule.is_minimum), spread_of(values, limits)
            passed |= ~rule.asks(languages)[of_language]
        total = Passed(int(passed.sum()), len(passed))
        by_source, by_language = _grouped(passed, sources, of_source), _grouped(passed, languages, of_language)
        found.append(RulePasses(rule, threshold, total, by_source, by_language, spread))
    return found


def in_force(thresholds: Mapping[str, Any]) -> list[tuple[Rule, Any]]:
    """The rules that can drop something, with their thresholds."""
    always = [(rule, 1 if rule.setting is None else thresholds.get(rule.setting)) for rule in RULES]
    return [(rule, threshold) for rule, threshold in always if threshold is not None]


def passing(values: np.ndarray, threshold: float, is_minimum: bool) -> np.ndarray:
    """[documents] Whether each passes, in 32 bits as refine decides; what is no number never does."""
    values, limit = values.astype(np.float32), np.float32(threshold)
    passed: np.ndarray = values >= limit if is_minimum else values <= limit
    return passed


def spread_of(values: np.ndarray, thresholds: Sequence[float] = (), bins: int = BINS) -> Spread:
    """Bins that show the bulk and the thresholds: an outlier does not squeeze the rest into one bar.

    No bin lies on both sides of a threshold, unless two of them are as near as two edges.
    """
    known = values[np.isfinite(values)].astype(np.float64)
    unknown = len(values) - len(known)
    low, high = (float(known.min()), float(np.quantile(known, 0.995))) if len(known) else (0.0, 1.0)
    # A threshold far beyond the bulk is drawn at the end of the axis.
    reach = 4 * high if high > 0 else max(thresholds, default=1.0)
    low, high = min([low, *thresholds]), max([high, *(min(each, reach) for each in thresholds)])
    log = low >= 0 and high >= 100
    # An axis that nearly begins at zero begins there.
    low = 0.0 if not log and 0 < low < 0.2 * high else low
    if log:
        low = max(low, 1.0)
        edges = np.geomspace(low, max(high, low * 10), bins + 1)
    else:
        # All alike is one bar, in bins that the size of the value leaves room for.
        edges = np.linspace(low, high if high - low > 1e-9 * abs(low) else low + max(1, 1e-6 * abs(low)), bins + 1)
    for each in thresholds:
        if edges[0] < each < edges[-1]:
            edges[1 + np.abs(edges[1:-1] - each).argmin()] = each
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    return Spread(edges.tolist(), counts.tolist(), log, unknown)


def _first_beyond(rule: Rule, threshold: float) -> float:
    """Where the side to the right of a threshold begins: a value at it passes, so a maximum belongs to the left."""
    return float(threshold if rule.is_minimum else np.nextafter(np.float32(threshold), np.float32(np.inf)))


def _scored(scores: Sequence[Path]) -> set[str]:
    """Columns that every part has."""
    return set.intersection(*(set(columns_of(path)) for path in scores)) if scores else set()


def _strings(batches: Sequence["pa.RecordBatch"], name: str) -> Iterator[list[str]]:
    for batch in batches:
        yield [each or "" for each in batch.column(name).to_pylist()]


def _numbers(batches: Sequence["pa.RecordBatch"], name: str) -> np.ndarray:
    parts = [numbers(batch.column(name)).astype(np.float32) for batch in batches]
    return np.concatenate([np.empty(0, np.float32), *parts])


def _coded(parts: Iterator[list[str]]) -> tuple[list[str], np.ndarray]:
    """The different values, and [documents] the place of each document's value among them."""
    places: dict[str, int] = {}
    codes = [np.array([places.setdefault(each, len(places)) for each in part], np.int32) for part in parts]
    return list(places), np.concatenate([np.empty(0, np.int32), *codes])


def _grouped(passed: np.ndarray, names: Sequence[str], of: np.ndarray) -> dict[str, Passed]:
    asked = np.bincount(of, minlength=len(names))
    good = np.bincount(of[passed], minlength=len(names))
    return {name: Passed(int(good[code]), int(asked[code])) for code, name in sorted(enumerate(names), key=_by_name)}


def _by_name(entry: tuple[int, str]) -> str:
    return entry[1]
