"""Share of the golden prompts that are answered soundly: their rate is exact, because they are the complete set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.model.config import EvaluateConfig
from sluice.model.evaluation.metric import Measured, Metric, Subject, mean, summary
from sluice.model.evaluation.metric_policy import MetricPolicy
from sluice.model.evaluation.results import Item

if TYPE_CHECKING:
    from sluice.model.evaluation.held_out import HeldOut

NAME = "golden_pass_rate"
GOLDEN_FILE = "golden.json"
FILE_HASH = "golden_prompts"

POLICY = MetricPolicy(kind="golden", floor=1.0, max_lost=0, min_items=10)


def measure(subject: Subject) -> Measured:
    from sluice.model.evaluation.golden import load_prompts, run_golden

    prompts, limit = load_prompts(Path(subject.config.golden_prompts)), subject.config.golden_max_tokens
    results = run_golden(subject.model, subject.encoder, prompts, limit, subject.progress)
    items = [Item(NAME, result.prompt.item_id, float(not result.failed)) for result in results]
    answers = [
        {"id": r.prompt.id, "kind": r.prompt.kind, "prompt": r.prompt.prompt, "answer": r.text, "failed": r.failed}
        for r in results
    ]
    return Measured(items, files={GOLDEN_FILE: answers})


def planned(held_out: "HeldOut", config: EvaluateConfig) -> int:
    from sluice.model.evaluation.golden import load_prompts

    return len(load_prompts(Path(config.golden_prompts)))


def summarize(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    return summary(mean(items), len(items), None)


def report(results: Mapping[str, Any]) -> dict[str, Any]:
    rate = results["metrics"][NAME]
    return {"golden_pass_rate": rate["value"], "golden_prompts": rate["n"]}


METRIC = Metric(
    name=NAME,
    title="Golden prompts",
    policy=POLICY,
    measure=measure,
    planned=planned,
    file_hash=FILE_HASH,
    summarize=summarize,
    report=report,
    headline=("golden_pass_rate",),
    show="{:.1%}".format,
)
