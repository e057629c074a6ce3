"""Pass rates of every rule and the distribution of its score, from the scores of a refined folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sluice.core.arrow import numbers
from sluice.data.card.folder import RefinedFolder, columns_of, rows
from sluice.data.quality.language import is_wanted
from sluice.data.quality.rule import QualityRule
from sluice.data.quality.rules import LANGUAGE, RULES

if TYPE_CHECKING:
    import pyarrow as pa

BINS = 38


@dataclass(frozen=True)
class Passed:
    """Documents that pass a rule, of those it was applied to."""

    passed: int = 0
    documents: int = 0


@dataclass(frozen=True)
class Spread:
    """A histogram of one score; the first and last bins include the values below and above them."""

    edges: list[float]
    """[bins + 1]"""
    counts: list[int]
    """[bins]"""
    log: bool
    unknown: int = 0
    """Documents whose score is not a number."""


@dataclass(frozen=True)
class RulePasses:
    """One rule applied alone to every document that has scores."""

    rule: QualityRule
    threshold: Any
    total: Passed
    by_source: dict[str, Passed]
    by_language: dict[str, Passed]
    spread: Spread | None
    """None for the rule of languages."""


def rule_passes(folder: RefinedFolder) -> list[RulePasses]:
    """Return every rule in force, in the order of refine; empty where the folder has no scores.

    Takes 4 bytes of memory a document and rule.
    """
    # Every part has the same columns, unless versions were mixed.
    columns = [set(columns_of(path)) for path in folder.scores]
    scored = set.intersection(*columns) if columns else set()
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
            wanted = np.array([is_wanted(language, threshold) for language in languages], np.bool_)
            passed, spread = wanted[of_language] if len(languages) else np.empty(0, np.bool_), None
        else:
            parts = [numbers(batch.column(rule.score)).astype(np.float32) for batch in batches]
            values = np.concatenate([np.empty(0, np.float32), *parts])
            # A value at a maximum passes, so the range that fails begins just above it.
            limits = [
                float(limit if other.is_minimum else np.nextafter(np.float32(limit), np.float32(np.inf)))
                for other, limit in bounds
                if other.score == rule.score
            ]
            passed, spread = passing(values, float(threshold), rule.is_minimum), spread_of(values, limits)
            passed |= ~rule.applies_to(languages)[of_language]
        total = Passed(int(passed.sum()), len(passed))
        by_source, by_language = _grouped(passed, sources, of_source), _grouped(passed, languages, of_language)
        found.append(RulePasses(rule, threshold, total, by_source, by_language, spread))
    return found


def in_force(thresholds: Mapping[str, Any]) -> list[tuple[QualityRule, Any]]:
    """Return the rules that can drop something, with their thresholds."""
    always = [(rule, 1 if rule.setting is None else thresholds.get(rule.setting)) for rule in RULES]
    return [(rule, threshold) for rule, threshold in always if threshold is not None]


def passing(values: np.ndarray, threshold: float, is_minimum: bool) -> np.ndarray:
    """Return whether each value passes, [documents] bool, compared in 32 bits as in refine; NaN never does."""
    values, limit = values.astype(np.float32), np.float32(threshold)
    passed: np.ndarray = values >= limit if is_minimum else values <= limit
    return passed


def spread_of(values: np.ndarray, thresholds: Sequence[float] = (), bins: int = BINS) -> Spread:
    """Choose bins that show the bulk and the thresholds, so that outliers do not squeeze the rest into one bar.

    No bin lies on both sides of a threshold, unless two thresholds are closer than two edges.
    """
    known = values[np.isfinite(values)].astype(np.float64)
    unknown = len(values) - len(known)
    low, high = (float(known.min()), float(np.quantile(known, 0.995))) if len(known) else (0.0, 1.0)
    # A threshold far above the bulk is drawn at the end of the axis.
    reach = 4 * high if high > 0 else max(thresholds, default=1.0)
    low, high = min([low, *thresholds]), max([high, *(min(each, reach) for each in thresholds)])
    log = low >= 0 and high >= 100
    # An axis that begins near zero begins at zero.
    low = 0.0 if not log and 0 < low < 0.2 * high else low
    if log:
        low = max(low, 1.0)
        edges = np.geomspace(low, max(high, low * 10), bins + 1)
    else:
        # Equal values are one bar, in bins wide enough for the precision of the value.
        edges = np.linspace(low, high if high - low > 1e-9 * abs(low) else low + max(1, 1e-6 * abs(low)), bins + 1)
    for each in thresholds:
        if edges[0] < each < edges[-1]:
            edges[1 + np.abs(edges[1:-1] - each).argmin()] = each
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    return Spread(edges.tolist(), counts.tolist(), log, unknown)


def _strings(batches: Sequence["pa.RecordBatch"], name: str) -> Iterator[list[str]]:
    for batch in batches:
        yield [each or "" for each in batch.column(name).to_pylist()]


def _coded(parts: Iterator[list[str]]) -> tuple[list[str], np.ndarray]:
    """Return the distinct values, and the index of each document's value among them, [documents]."""
    places: dict[str, int] = {}
    codes = [np.array([places.setdefault(each, len(places)) for each in part], np.int32) for part in parts]
    return list(places), np.concatenate([np.empty(0, np.int32), *codes])


def _grouped(passed: np.ndarray, names: Sequence[str], of: np.ndarray) -> dict[str, Passed]:
    documents = np.bincount(of, minlength=len(names))
    good = np.bincount(of[passed], minlength=len(names))
    counts = {name: Passed(int(good[code]), int(documents[code])) for code, name in enumerate(names)}
    return dict(sorted(counts.items()))
