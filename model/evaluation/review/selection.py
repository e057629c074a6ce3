"""Which answers of an evaluation people have to see, and which they should: those of high risk, and disputed ones."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sluice.core.manifest import file_hash
from sluice.model.evaluation.lost_items import ANSWERS_FILE
from sluice.model.evaluation.results import RESULTS_FILE

Model = Literal["candidate", "baseline"]
MODELS: tuple[Model, ...] = ("candidate", "baseline")
BASELINE_FOLDER = "baseline"
REVIEW_FILE = "review.json"
"""Signed record of the review, beside the evaluation that it is about."""
_PASSES = 0.5


@dataclass(frozen=True)
class ReviewItem:
    """One prompt with the answers that people rate."""

    suite: str
    item: str
    prompt: str
    answers: Mapping[Model, str]
    """That of the baseline too where the evaluation has one."""
    high_risk: bool
    """Whether the gate waits for a person: the suite says so. Otherwise the item is disputed."""


@dataclass(frozen=True)
class Reviewable:
    """Answers of an evaluation that people have to review."""

    evaluation: str
    """sha256 of both models' answers."""
    items: tuple[ReviewItem, ...]

    @property
    def required(self) -> int:
        return sum(1 for each in self.items if each.high_risk)


def read_reviewable(folder: Path) -> Reviewable:
    """Read an evaluation folder, whose files must have been verified. ValueError where it has no answers of suites."""
    path, other = folder / ANSWERS_FILE, folder / BASELINE_FOLDER / ANSWERS_FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {ANSWERS_FILE}: evaluate with `sluice evaluate MODEL --suite .. --out DIR`")
    results = json.loads((folder / RESULTS_FILE).read_bytes())
    hashes = [file_hash(each) for each in (path, other) if each.is_file()]
    evaluation = hashlib.sha256("".join(hashes).encode()).hexdigest()
    theirs = _rows(other) if other.is_file() else []
    return Reviewable(evaluation, tuple(select(results, _rows(path), theirs)))


def select(
    results: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]
) -> list[ReviewItem]:
    """Return the items of high risk, then the disputed ones, in the order of the answers."""
    theirs = {(row["suite"], row["item"]): row for row in baseline}
    risky = high_risk_suites(results)
    found = []
    for row in answers:
        other = theirs.get((row["suite"], row["item"]))
        is_risky = row["suite"] in risky
        if not (is_risky or is_disputed(row) or (other is not None and is_disputed(other))):
            continue
        given: dict[Model, str] = {"candidate": str(row.get("answer") or "")}
        if other is not None:
            given["baseline"] = str(other.get("answer") or "")
        found.append(ReviewItem(row["suite"], row["item"], str(row["prompt"]), given, is_risky))
    return sorted(found, key=lambda each: not each.high_risk)


def high_risk_suites(results: Mapping[str, Any]) -> list[str]:
    """Return the suites whose answers the gate may not judge before a person has seen them."""
    return [name for name, suite in results.get("suites", {}).items() if suite.get("high_risk")]


def is_disputed(row: Mapping[str, Any]) -> bool:
    """Return whether scorers and judges disagree about an answer, or a judge could not say or contradicted itself."""
    passed = {score >= _PASSES for score in row.get("scores", {}).values() if score is not None}
    return len(passed) > 1 or bool(row.get("judge_error")) or bool(row.get("flipped"))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
