"""Evaluate a model: measure metrics on held-out text, run suites, and write the evaluation folder."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sluice.core.canonical import canonical_json
from sluice.core.manifest import file_hash
from sluice.core.progress import Progress, no_progress
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig
from sluice.model.evaluation.evaluated import EvaluatedModel
from sluice.model.evaluation.held_out import read_held_out
from sluice.model.evaluation.judging.suite import add_compared, add_judged
from sluice.model.evaluation.lost_items import ANSWERS_FILE
from sluice.model.evaluation.measurement_cache import MeasurementCache
from sluice.model.evaluation.metric import Measured
from sluice.model.evaluation.metrics import METRICS, golden_pass_rate, latency
from sluice.model.evaluation.parity import PARITY_FILE, parity_prompts, write_parity
from sluice.model.evaluation.plan import EvaluatedCandidate, EvaluationPlan
from sluice.model.evaluation.report import REPORT_FILE, render
from sluice.model.evaluation.results import ITEMS_FILE, RESULTS_FILE, SCHEMA_VERSION, item_lines
from sluice.model.evaluation.safety.extraction import EXTRACTION, measure_extraction
from sluice.model.evaluation.suites.cache import AnswerCache, CachedModel, code_hash
from sluice.model.evaluation.suites.contamination import add_contamination
from sluice.model.evaluation.suites.plain import NOTE, suites_for
from sluice.model.evaluation.suites.run import run_suite
from sluice.model.evaluation.suites.suite import load_suite
from sluice.model.evaluation.suites.suite_run import SuiteRun
from sluice.model.evaluation.suites.summary import summarize_suite_metric


class EvaluationReport(BaseModel):
    """Figures of one evaluation by the names that the metrics give them; None where the model gave no number."""

    model_config = ConfigDict(extra="allow")

    timings: dict[str, float]
    remember: Callable[[], object] = Field(default=lambda: None, exclude=True)
    """Attests the measurements, once the artifact and its metrics are in their final place."""


def evaluate(
    config: EvaluateConfig,
    model_dir: Path,
    documents: Path,
    split: PackConfig,
    out: Path,
    *,
    today: date | None = None,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Measure the model in `model_dir` on the test split of `documents`, and by the suites of the settings.

    Writes results.json, items.jsonl, the metrics' own files, greedy answers and evaluation.html into `out`, the same
    bytes for the same inputs. ValueError for a damaged model or suite, and for a corpus without a test or a train
    document.
    """
    from sluice.model.evaluation.model_folder import ModelFolder

    started = time.perf_counter()
    held_out = read_held_out(documents, split)
    suites = tuple(load_suite(Path(each.path)) for each in config.suites)
    plan = EvaluationPlan(config, held_out, suites, training_texts=tuple(held_out.train) if suites else ())
    read_s = time.perf_counter() - started
    candidate = EvaluatedCandidate(model_dir)
    results, timings = run_plan(candidate, plan, out, today=today or date.today(), progress=progress)
    assert isinstance(candidate.model, ModelFolder)
    asked = parity_prompts([text for _, text in held_out.test], config.parity_prompts, has_chat=candidate.has_chat)
    if kept := candidate.model.keep_greedy(asked, config.golden_max_tokens, progress):
        write_parity(kept, out / PARITY_FILE)
    figures: dict[str, Any] = {}
    for metric in METRICS:
        figures |= metric.report(results)
    if suites:
        by_suite = [name for entry in results["suites"].values() for name in entry["planned"]]
        figures["suites"] = {name: results["metrics"][name]["value"] for name in by_suite}
    return EvaluationReport(timings={"read_s": read_s, **timings}, **figures)


def run_plan(
    candidate: EvaluatedCandidate,
    plan: EvaluationPlan,
    out: Path,
    *,
    today: date,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Make the plan's measurements and write the evaluation folder. Returns the content of results.json, and timings.

    With `cache`, answers and measurements are kept in that folder, and those that are there are not made again.
    """
    timings: dict[str, float] = {}
    measured: dict[str, Measured] = {}
    suites = suites_for(plan.suites, str(candidate.name), has_chat=candidate.has_chat) if plan.suites else ()
    if plan.held_out is not None:
        measured = _measure(candidate, plan, timings, cache, progress)
    runs: dict[str, SuiteRun] = {}
    judge: EvaluatedModel | None = None
    with ExitStack() as stack:
        model: EvaluatedModel = candidate.model if cache is None else _cached(candidate, cache, stack)
        for suite, wanted in zip(suites, plan.suites, strict=True):
            started = time.perf_counter()
            runs[suite.settings.name] = run_suite(model, suite, today=today, progress=progress)
            if suite.settings.chat != wanted.settings.chat:
                runs[suite.settings.name].entry["note"] = NOTE
            if suite.judging is not None:
                judge = judge or _judge(plan, cache, stack)
                add_judged(runs[suite.settings.name], suite, judge, progress)
                if judge is not None and suite.judging.compare is not None and plan.beside is not None:
                    lines = (plan.beside / ANSWERS_FILE).read_text(encoding="utf-8").splitlines()
                    rows = [json.loads(line) for line in lines]
                    own = plan.judge_is
                    add_compared(runs[suite.settings.name], suite, judge, rows, own=own, progress=progress)
            timings[f"{suite.settings.name}_s"] = time.perf_counter() - started
        for task, data in plan.tasks.items():
            from sluice.model.evaluation.lm_eval import run_task

            started = time.perf_counter()
            runs[task] = SuiteRun(*run_task(model, task, data, progress=progress))
            timings[f"{task}_s"] = time.perf_counter() - started
        if plan.training_texts:
            for run in runs.values():
                add_contamination(run, plan.training_texts)
        if (corpus := plan.extraction) is not None:
            started = time.perf_counter()
            held_out = [text for _, text in corpus.test]
            runs[EXTRACTION] = measure_extraction(
                model, corpus.train, held_out, confidence=plan.config.confidence, progress=progress
            )
            timings[f"{EXTRACTION}_s"] = time.perf_counter() - started
    hashes, planned = {"model": candidate.model_hash}, {}
    if not candidate.is_served:
        hashes["tokenizer"] = file_hash(candidate.folder / "tokenizer.json")
    if plan.held_out is not None:
        hashes["data"] = plan.held_out.data_hash
        hashes[golden_pass_rate.FILE_HASH] = file_hash(Path(plan.config.golden_prompts))
        planned = {each.name: each.planned(plan.held_out, plan.config) for each in METRICS if each.planned is not None}
    return write_artifact(plan.config, out, hashes, measured, runs, planned=planned), timings


def _measure(
    candidate: EvaluatedCandidate,
    plan: EvaluationPlan,
    timings: dict[str, float],
    cache: Path | None,
    progress: Progress,
) -> dict[str, Measured]:
    """Measure every metric, or take it from the cache."""
    assert plan.held_out is not None
    kept = MeasurementCache(cache / "measurements", _about(candidate, plan)) if cache is not None else None
    measured: dict[str, Measured] = {}
    subject = None
    for metric in METRICS:
        started = time.perf_counter()
        found = kept.get(metric.name) if kept is not None else None
        if found is None:
            subject = subject or candidate.subject(plan.held_out, plan.config, progress)
            found = metric.measure(subject)
            if kept is not None:
                kept.put(metric.name, found)
        measured[metric.name] = found
        timings |= {f"{metric.name}_s": time.perf_counter() - started, **found.timings}
    return measured


def _judge(plan: EvaluationPlan, cache: Path | None, stack: ExitStack) -> EvaluatedModel | None:
    """Return the plan's judge, whose replies are kept as a model's answers are."""
    judge = plan.judge
    if judge is None or cache is None:
        return judge
    kept = stack.enter_context(AnswerCache(cache / "answers", judge.model_hash))
    return CachedModel(judge.model_hash, False, lambda: judge, kept)


def _about(candidate: EvaluatedCandidate, plan: EvaluationPlan) -> dict[str, Any]:
    """All that a measurement of a metric depends on."""
    assert plan.held_out is not None
    return {
        "model": candidate.model_hash,
        "code": code_hash(),
        "data": plan.held_out.data_hash,
        "test": hashlib.sha256(canonical_json([name for name, _ in plan.held_out.test])).hexdigest(),
        "golden_prompts": file_hash(Path(plan.config.golden_prompts)),
        "settings": plan.config.model_dump(mode="json", exclude={"suites", "golden_prompts"}),
    }


def time_in_turns(
    candidates: Sequence[EvaluatedCandidate],
    plan: EvaluationPlan,
    *,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> list[dict[str, float]]:
    """Return the timings of models that are to be compared, measured in turns; none where a plan or a model has no
    latency to measure. With `cache`, timings of the same models are kept.
    """
    if plan.held_out is None or any(candidate.is_served for candidate in candidates):
        return [{} for _ in candidates]
    about = [_about(candidate, plan) for candidate in candidates]
    kept = [
        MeasurementCache(cache / "measurements", {**each, "in_turns": [other["model"] for other in about]})
        for each in about
        if cache is not None
    ]
    found = [each.get(latency.NAME) for each in kept]
    if not found or None in found:
        held_out = plan.held_out
        measured = latency.measure_in_turns([each.subject(held_out, plan.config, progress) for each in candidates])
        for each, one in zip(kept, measured, strict=False):
            each.put(latency.NAME, one)
        return [dict(one.timings) for one in measured]
    return [dict(one.timings) for one in found if one is not None]


def _cached(candidate: EvaluatedCandidate, cache: Path, stack: ExitStack) -> CachedModel:
    answers = stack.enter_context(AnswerCache(cache / "answers", candidate.model_hash))
    is_local = not candidate.is_served
    can_score = is_local or candidate.model.can_score
    return CachedModel(candidate.model_hash, can_score, lambda: candidate.model, answers, keeps_errors=is_local)


def write_artifact(
    config: EvaluateConfig,
    out: Path,
    hashes: dict[str, str],
    measured: Mapping[str, Measured],
    runs: Mapping[str, SuiteRun],
    *,
    planned: Mapping[str, int],
) -> dict[str, Any]:
    """Write the evaluation folder and return the content of results.json.

    planned: items by metric that settings and text plan, so that lost rows are not taken for a smaller set.
    """
    summarized = {
        metric.name: (measured[metric.name].items, metric.summarize)
        for metric in METRICS
        if metric.summarize and metric.name in measured
    }
    items = [item for rows, _ in summarized.values() for item in rows]
    items += [item for run in runs.values() for item in run.items]
    lines = item_lines(items)
    evaluation_set = sorted([item.metric, item.item, item.weight] for item in items)
    by_suite = {name: count for run in runs.values() for name, count in run.entry["planned"].items()}
    if twice := by_suite.keys() & summarized.keys():
        raise ValueError(f"suite metric {min(twice)} has the name of a metric: rename the suite")
    results = {
        "schema_version": SCHEMA_VERSION,
        "hashes": {
            **hashes,
            "evaluation_set": hashlib.sha256(canonical_json(evaluation_set)).hexdigest(),
            "items": hashlib.sha256(lines).hexdigest(),
        },
        "planned": {name: planned[name] for name in summarized} | by_suite,
        "confidence": config.confidence,
        "metrics": {name: summarize(rows, config) for name, (rows, summarize) in summarized.items()}
        | {name: summarize_suite_metric([i for i in items if i.metric == name], config) for name in by_suite},
        "suites": {name: run.entry for name, run in runs.items()},
        "scorers": {name: found for run in runs.values() for name, found in run.entry.get("scorers", {}).items()},
    }
    files: dict[str, Any] = {}
    for found in measured.values():
        results |= found.results
        files |= found.files
    (out / ITEMS_FILE).write_bytes(lines)
    if runs:
        rows = [canonical_json(answer) + b"\n" for run in runs.values() for answer in run.answers]
        (out / ANSWERS_FILE).write_bytes(b"".join(rows))
    for name, content in {RESULTS_FILE: results, **files}.items():
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (out / name).write_text(text + "\n", encoding="utf-8")
    (out / REPORT_FILE).write_text(render(results, files.get(golden_pass_rate.GOLDEN_FILE, [])), encoding="utf-8")
    return results
