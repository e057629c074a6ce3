"""Share of the golden prompts that are answered soundly: their rate is exact, because they are the complete set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from sluice.core.check import Check, compare_exact
from sluice.model.config import EvaluateConfig, GateSettings
from sluice.model.evaluation.item_checks import unusable
from sluice.model.evaluation.metric import Measured, Metric, Subject, mean, summary
from sluice.model.evaluation.results import Evaluation, Item

NAME = "golden_pass_rate"
ANSWERS_FILE = "golden.json"


class Bounds(GateSettings):
    min_golden_pass_rate: float = Field(1.0, ge=0, le=1)


def measure(subject: Subject) -> Measured:
    from sluice.model.evaluation.golden import load_prompts, run_golden

    prompts, limit = load_prompts(Path(subject.config.golden_prompts)), subject.config.golden_max_tokens
    results = run_golden(subject.model, subject.encoder, prompts, limit, subject.progress)
    items = [Item(NAME, result.prompt.item_id, float(not result.failed)) for result in results]
    answers = [
        {"id": r.prompt.id, "kind": r.prompt.kind, "prompt": r.prompt.prompt, "answer": r.text, "failed": r.failed}
        for r in results
    ]
    return Measured(items, files={ANSWERS_FILE: answers})


def summarize(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    return summary(mean(items), len(items), None)


def report(results: Mapping[str, Any]) -> dict[str, Any]:
    rate = results["metrics"][NAME]
    return {"golden_pass_rate": rate["value"], "golden_prompts": rate["n"]}


def check(evaluation: Evaluation, bounds: Bounds, confidence: float) -> Check:
    bound = bounds.min_golden_pass_rate
    if fault := unusable(NAME, evaluation, NAME, bound, min_samples=1):
        return fault
    items = evaluation.items[NAME]
    return compare_exact(NAME, mean(items), bound, good="above", n=len(items))


METRIC = Metric(
    name=NAME,
    title="Golden prompts",
    bounds=Bounds,
    measure=measure,
    summarize=summarize,
    report=report,
    headline=("golden_pass_rate",),
    check=check,
    show="{:.1%}".format,
)
