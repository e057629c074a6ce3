"""The registry of metrics: one file each, found in order, light to import, with the gate's settings beside them."""

import sys
from dataclasses import replace
from pathlib import Path

from sluice.core.check import compare_exact
from sluice.model.evaluation import gate, metrics, policy
from sluice.model.evaluation.finding import GateFinding
from sluice.model.evaluation.metric_policy import MetricPolicy
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.results import Evaluation


def test_every_file_is_a_metric_in_the_order_of_the_names():
    names = [path.stem for path in sorted(Path(metrics.__path__[0]).glob("*.py")) if path.stem != "__init__"]
    assert names == ["bits_per_byte", "choice_accuracy", "golden_pass_rate", "latency"]
    modules = [sys.modules[f"{metrics.__name__}.{name}"] for name in names]
    assert [module.METRIC for module in modules] == list(METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_a_metric_more_is_in_every_policy_and_is_checked(monkeypatch):
    def check(evaluation, bounds):
        return GateFinding(compare_exact("answers", 0.0, bounds.floor, good="above", n=1))

    added = replace(METRICS[-1], name="answers", check=check, policy=MetricPolicy(floor=1.0))
    monkeypatch.setattr(gate, "METRICS", [added])
    monkeypatch.setattr(policy, "DEFAULTS", {"answers": added.policy})
    results = {"hashes": {"model": "a", "evaluation_set": "s"}, "planned": {}}
    verdict = gate.decide(Evaluation(results, {}), None, policy.Policy(name="p", version=1))
    assert (verdict.outcome, verdict.reason) == ("reject", "answers 0.000 < 1.000, n=1")
