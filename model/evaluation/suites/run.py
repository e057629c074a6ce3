"""Run a suite: ask a model every sample and score the answers."""

from datetime import date
from statistics import fmean

from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import EvaluatedModel
from sluice.model.evaluation.metric import rounded
from sluice.model.evaluation.suites.choosing import add_chosen
from sluice.model.evaluation.suites.generating import add_generated
from sluice.model.evaluation.suites.requests import item_id, plain_prompt, prompt_hashes, prompts, question
from sluice.model.evaluation.suites.scorer import agreement_entry
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.scorers.retrieval import recall_at_k, reciprocal_rank
from sluice.model.evaluation.suites.suite import Suite
from sluice.model.evaluation.suites.suite_run import Asked, SuiteRun


def run_suite(model: EvaluatedModel, suite: Suite, *, today: date, progress: Progress = no_progress) -> SuiteRun:
    """Ask `model` every sample of `suite`.

    An answer that failed has its scorer's worst score, and names its error; a choice without a number is NaN. Where the
    model cannot give what a scorer reads (a served model has no likelihoods), the metric has no rows, which is
    inconclusive.
    """
    settings = suite.settings
    asked = Asked(suite, prompts(suite))
    run = SuiteRun()
    harm = [name for name in settings.scorers if SCORERS[name].worst == 1.0]
    run.answers = [
        {
            "suite": settings.name,
            "id": sample.id,
            "item": item_id(suite, sample, prompt),
            "prompt": plain_prompt(prompt),
            "targets": list(sample.targets) or [sample.choices[sample.key]] if sample.targets or sample.choices else [],
            "scores": {},
            **({"harm": harm} if harm else {}),
            # A text holds its examples too, which may themselves stand in training text.
            **({} if settings.chat or not settings.few_shot else {"question": question(settings, sample)}),
        }
        for sample, prompt in zip(suite.samples, asked.prompts, strict=True)
    ]
    run.entry = {
        "version": str(settings.version),
        "sha256": settings.sha256,
        "source": settings.source,
        "licence": settings.licence,
        "created": settings.created.isoformat(),
        "refresh_by": settings.refresh_by.isoformat(),
        "overdue": settings.is_overdue(today),
        "high_risk": settings.high_risk,
        "prompts": dict(prompt_hashes(settings, asked.prompts)),
        "settings": settings.model_dump(mode="json", exclude={"name", "data", "sha256", "source", "licence"}),
        "planned": {settings.metric(name): len(suite.samples) for name in settings.scorers},
        "chance": {
            settings.metric(name): rounded(fmean(1 / len(sample.choices) for sample in suite.samples))
            for name in settings.scorers
            if SCORERS[name].needs == "choices"
        },
        "failed": 0,
        "scorers": {
            name: agreement_entry(agreed)
            for name in settings.scorers
            if (agreed := SCORERS[name].agreement) is not None
        },
    }
    if settings.generates:
        add_generated(model, asked, run, progress)
    if any(SCORERS[name].reads == "choices" for name in settings.scorers):
        add_chosen(model, asked, run, progress)
    if settings.recall_at:
        _add_ranking(asked, run)
    return run


def _add_ranking(asked: Asked, run: SuiteRun) -> None:
    """Add recall@k and the mean reciprocal rank of the samples' rankings, which no model made."""
    settings = asked.suite.settings
    rankings = [(sample.fields["ranked"], sample.fields["relevant"]) for sample in asked.suite.samples]
    found = {f"{settings.name}.recall@{k}": [recall_at_k(*each, k) for each in rankings] for k in settings.recall_at}
    found[f"{settings.name}.mrr"] = [reciprocal_rank(*each) for each in rankings]
    for metric, values in found.items():
        run.items += asked.rows(metric, values)
        run.entry["planned"][metric] = len(values)
