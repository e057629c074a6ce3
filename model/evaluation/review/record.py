"""The signed record of a review beside an evaluation, what it says, and its weight against judges."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sluice.core.manifest import file_hash
from sluice.model.evaluation.judging.agreement import krippendorffs_alpha
from sluice.model.evaluation.judging.preferences import Outcome, Preference, win_rate
from sluice.model.evaluation.keys import TrustedKeys, signing_key
from sluice.model.evaluation.lost_items import ANSWERS_FILE
from sluice.model.evaluation.results import Evaluation, Item
from sluice.model.evaluation.review.selection import (
    REVIEW_FILE,
    Model,
    Reviewable,
    high_risk_suites,
    read_reviewable,
)
from sluice.model.evaluation.signed_document import read_signed, write_signed

Better = Literal["candidate", "baseline", "tie"]

_KIND = "review"
_REDO = "import the review again with `sluice review import`"


@dataclass(frozen=True)
class Rating:
    """Rating of one item by one rater."""

    suite: str
    item: str
    rater: str
    passed: Mapping[Model, bool]
    """By model."""
    better: Better | None
    """None where there is one answer."""


def write_review(path: Path, reviewable: Reviewable, ratings: Sequence[Rating], key_folder: Path) -> dict[str, Any]:
    """Write the signed record of all ratings so far, and return its summary."""
    summary = summarize(reviewable, ratings)
    rows = [
        {
            "suite": each.suite,
            "item": each.item,
            "rater": each.rater,
            "passed": dict(each.passed),
            "better": each.better,
        }
        for each in sorted(ratings, key=lambda each: (each.suite, each.item, each.rater))
    ]
    content = {"schema_version": 1, "evaluation": reviewable.evaluation, "summary": summary, "ratings": rows}
    write_signed(path, _KIND, content, signing_key(key_folder))
    return summary


def read_review(path: Path, reviewable: Reviewable, trusted: TrustedKeys) -> list[Rating]:
    """Return the ratings so far, none without a record. ValueError for one that was changed or is of other answers."""
    if not path.is_file():
        return []
    content = read_signed(path, _KIND, trusted, _REDO)
    if content.get("schema_version") != 1:
        raise ValueError(f"{path}: of another schema; {_REDO}")
    if content["evaluation"] != reviewable.evaluation:
        raise ValueError(f"{path}: reviews other answers than those of the evaluation: remove it and review again")
    return [Rating(**each) for each in content["ratings"]]


def merge(earlier: Sequence[Rating], new: Sequence[Rating]) -> list[Rating]:
    """Return both; what was imported before may come again. ValueError for a rating that differs from the earlier."""
    known = {(each.suite, each.item, each.rater): each for each in earlier}
    for each in new:
        key = (each.suite, each.item, each.rater)
        if known.setdefault(key, each) != each:
            raise ValueError(
                f"{each.rater} rated item {each.item} of {each.suite} otherwise in an earlier import: a rating is not "
                f"changed afterwards; to start again, remove {REVIEW_FILE}"
            )
    return list(known.values())


def summarize(reviewable: Reviewable, ratings: Sequence[Rating]) -> dict[str, Any]:
    """Return how far the review is, how well raters agree, and which model people prefer."""
    rated = {(each.suite, each.item) for each in ratings}
    units: dict[tuple[str, str, str], list[str]] = {}
    for each in ratings:
        for model, passed in each.passed.items():
            units.setdefault((each.suite, each.item, model), []).append("pass" if passed else "fail")
    alpha = krippendorffs_alpha(list(units.values()), clusters=[f"{suite}\n{item}" for suite, item, _ in units])
    preferences = [
        Preference("candidate", "baseline", _OUTCOMES[each.better], f"{each.suite}\n{each.item}")
        for each in ratings
        if each.better
    ]
    won = win_rate(preferences, "candidate") if preferences else None
    return {
        "required": reviewable.required,
        "reviewed": sum(1 for each in reviewable.items if each.high_risk and (each.suite, each.item) in rated),
        "disputed": len(reviewable.items) - reviewable.required,
        "disputed_reviewed": sum(
            1 for each in reviewable.items if not each.high_risk and (each.suite, each.item) in rated
        ),
        "raters": len({each.rater for each in ratings}),
        "rated_twice": alpha.n,
        "alpha": alpha.summary()["value"],
        "alpha_interval": alpha.summary()["interval"],
        "win_rate": won.value if won else None,
        "win_rate_interval": list(won.interval) if won else None,
    }


def apply_review(
    evaluation: Evaluation, reviewable: Reviewable, ratings: Sequence[Rating], model: Model = "candidate"
) -> Evaluation:
    """Return the evaluation as people see it: `results["review"]`, and their ratings in the place of a judge's scores.

    Each suite of high risk gets a metric SUITE.review: 1 for an answer that most raters pass, 0 for one that they do
    not. A judge's row is replaced where a person rated the answer. Without anything to review nothing changes.
    """
    if not reviewable.required and not ratings:
        return evaluation
    said = majority(ratings, model)
    suites = evaluation.results.get("suites", {})
    items = dict(evaluation.items)
    for suite, entry in suites.items():
        for metric in entry.get("judged", {}):
            items[metric] = tuple(
                replace(row, value=float(said[suite, row.item]), metadata={**row.metadata, "scored_by": "person"})
                if (suite, row.item) in said
                else row
                for row in items.get(metric, ())
            )
    planned = dict(evaluation.results["planned"])
    clusters = {row.item: row.cluster for rows in evaluation.items.values() for row in rows}
    for suite in high_risk_suites(evaluation.results):
        metric = f"{suite}.review"
        risky = [each for each in reviewable.items if each.suite == suite and each.high_risk]
        planned[metric] = len(risky)
        items[metric] = tuple(
            Item(metric, each.item, float(said[suite, each.item]), cluster=clusters.get(each.item, ""))
            for each in risky
            if (suite, each.item) in said
        )
    results = {**evaluation.results, "planned": planned, "review": summarize(reviewable, ratings)}
    return replace(evaluation, results=results, items=items)


def majority(ratings: Sequence[Rating], model: Model) -> dict[tuple[str, str], bool]:
    """Return whether most raters pass the model's answer, by suite and item. As many for as against do not."""
    votes: dict[tuple[str, str], list[bool]] = {}
    for each in ratings:
        if model in each.passed:
            votes.setdefault((each.suite, each.item), []).append(each.passed[model])
    return {key: 2 * sum(found) > len(found) for key, found in votes.items()}


def reviewed_evaluation(
    folder: Path,
    evaluation: Evaluation,
    trusted: TrustedKeys,
    model: Model = "candidate",
    *,
    record: Path | None = None,
) -> Evaluation:
    """Return the model's evaluation with the review of a verified folder, the candidate's, if it has one.

    `record` is the review's file; None: review.json in the folder. ValueError for a damaged one, and for one of other
    answers.
    """
    record = record or folder / REVIEW_FILE
    if not (folder / ANSWERS_FILE).is_file():
        return evaluation
    reviewable = read_reviewable(folder)
    ratings = read_review(record, reviewable, trusted)
    if ratings:  # the verdict names the review that it rests on
        results = {**evaluation.results, "hashes": {**evaluation.hashes, "review": file_hash(record)}}
        evaluation = replace(evaluation, results=results)
    return apply_review(evaluation, reviewable, ratings, model)


def unreviewed(results: Mapping[str, Any]) -> str | None:
    """Return why people have not seen enough for a decision: an item of high risk that nobody rated. None if they have.

    `results` are those of `apply_review`; without it nothing is reviewed.
    """
    if not (suites := high_risk_suites(results)):
        return None
    review = results.get("review") or {}
    required, done = review.get("required", 0), review.get("reviewed", 0)
    if required >= 1 and done >= required:
        return None
    count = f"{required - done} of {required}" if required else "all"
    return (
        f"{count} items of high risk ({', '.join(suites)}) are not reviewed by a person: `sluice review export` writes "
        "them, `sluice review import` reads the ratings"
    )


def failed_unbounded(evaluation: Evaluation, bounded: Collection[str]) -> str | None:
    """Return why answers of high risk that people fail forbid a decision: no bound says how many may. None if one does,
    or people pass them all.
    """
    for suite in high_risk_suites(evaluation.results):
        rows = evaluation.items.get(metric := f"{suite}.review", ())
        failed = sum(1 for row in rows if row.value < 1)
        if failed and metric not in bounded:
            return f"people fail {failed} of {len(rows)} answers of {suite}: give the policy a bound for suite {metric}"
    return None


_OUTCOMES: dict[str, Outcome] = {"candidate": "first", "baseline": "second", "tie": "tie"}
