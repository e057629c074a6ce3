"""A judge's scores of a suite's answers, as a metric of the suite beside those of its scorers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import EvaluatedModel
from sluice.model.evaluation.judging.judge import (
    JudgeQuality,
    compare_with_people,
    judge_answers,
    judged_items,
    summarize_judged,
)
from sluice.model.evaluation.judging.judge_server import MODEL_VARIABLE, URL_VARIABLE
from sluice.model.evaluation.judging.pairwise import AnswerPair, judge_pairs, summarize_pairs
from sluice.model.evaluation.judging.preferences import Outcome, Preference, win_rate
from sluice.model.evaluation.judging.rubric import JudgedAnswer
from sluice.model.evaluation.metric import rounded
from sluice.model.evaluation.results import Item
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.suite import Suite
from sluice.model.evaluation.suites.suite_run import LONGEST_ERROR, SuiteRun


def add_judged(run: SuiteRun, suite: Suite, judge: EvaluatedModel | None, progress: Progress = no_progress) -> None:
    """Have the answers of `run` judged: adds the metric SUITE.RUBRIC, and the judge among the `scorers` of its entry.

    Without answers that people labelled, the judge decides nothing; without a judge (None) the metric has no rows. An
    answer that failed is not judged and does not pass. Over 2 % of judge's errors leave the metric without rows.
    """
    assert suite.judging is not None
    rubric, labelled = suite.judging.rubric, suite.judging.labelled
    metric, scorer = f"{suite.settings.name}.{rubric.name}", f"judge-{rubric.name}"
    run.entry["planned"][metric] = len(suite.samples)
    run.entry.setdefault("judged", {})[metric] = scorer
    # The verdict has these hashes. Both models' runs name the rubric of comparisons, whichever of them is compared.
    used = [rubric, *([suite.judging.compare] if suite.judging.compare is not None else [])]
    run.entry["rubrics"] = {each.name: {"sha256": each.sha256, "text": each.system_prompt("MARK")} for each in used}
    run.entry["prompts"] = {**run.entry["prompts"], **{f"rubric-{each.name}": each.sha256 for each in used}}
    if judge is None:
        run.entry.setdefault("unscored", {})[metric] = f"no judge: set {URL_VARIABLE} and {MODEL_VARIABLE}"
        return
    texts = {suite.settings.metric(name) for name in suite.settings.scorers if SCORERS[name].reads == "text"}
    if texts & run.entry.get("unscored", {}).keys():
        run.entry["unscored"][metric] = "no answer to judge: no prompt can be asked"
        return
    answered = [
        JudgedAnswer(row["item"], row["prompt"], row["answer"], tuple(map(str, row["targets"])), sample.cluster)
        for row, sample in zip(run.answers, suite.samples, strict=True)
        if not row.get("error")
    ]
    quality: JudgeQuality | None = compare_with_people(judge, rubric, labelled, progress) if labelled else None
    judgements = judge_answers(judge, rubric, answered, progress)
    found = {each.id: each for each in judgements}
    rows = {item.item: item for item in judged_items(metric, answered, judgements)}
    for row in run.answers:
        if (judgement := found.get(row["item"])) is None:
            continue
        row["scores"][rubric.name] = None if judgement.error else float(judgement.passed)
        if judgement.error:
            row["judge_error"] = judgement.error[:LONGEST_ERROR]
        elif judgement.score is not None:
            row["judge_score"] = rounded(judgement.score)
    about = {item.item: item.metadata for item in run.items}
    for row, sample in zip(run.answers, suite.samples, strict=True) if rows else ():
        judged = rows.get(row["item"]) or Item(metric, row["item"], 0.0, cluster=sample.cluster)
        run.items.append(replace(judged, metadata={**about.get(row["item"], {}), **judged.metadata}))
    run.entry.setdefault("scorers", {})[scorer] = summarize_judged(judge, rubric, answered, judgements, quality)


def add_compared(
    run: SuiteRun,
    suite: Suite,
    judge: EvaluatedModel,
    baseline: Sequence[Mapping[str, Any]],
    *,
    own: Literal["candidate", "baseline"] | None = None,
    progress: Progress = no_progress,
) -> None:
    """Compare the answers of `run` with the baseline's: adds `compared` to its entry, and `flipped` to its answers.

    baseline: rows of the other model's answers. Answers that failed are not compared. own: the model that is the judge.
    """
    assert suite.judging is not None and suite.judging.compare is not None
    theirs = {row["item"]: row for row in baseline if row["suite"] == suite.settings.name and not row.get("error")}
    pairs = [
        AnswerPair(row["item"], row["prompt"], row["answer"], theirs[row["item"]]["answer"], sample.cluster)
        for row, sample in zip(run.answers, suite.samples, strict=True)
        if row["item"] in theirs and not row.get("error")
    ]
    judgements = judge_pairs(judge, suite.judging.compare, pairs, progress)
    found = {each.id: each for each in judgements}
    for row in run.answers:
        if row["item"] in found and found[row["item"]].flipped:
            row["flipped"] = True
    outcomes: dict[str | None, Outcome] = {"candidate": "first", "baseline": "second", "tie": "tie"}
    preferences = [
        Preference("candidate", "baseline", outcomes[judgement.winner], pair.cluster or pair.id)
        for pair, judgement in zip(pairs, judgements, strict=True)
        if judgement.winner is not None
    ]
    summary = summarize_pairs(pairs, judgements, own=own)
    won = win_rate(preferences, "candidate") if summary["conclusive"] and preferences else None
    run.entry["compared"] = {
        "judge": judge.model_hash,
        **summary,
        "win_rate": won.value if won else None,
        "win_rate_interval": list(won.interval) if won else None,
    }
