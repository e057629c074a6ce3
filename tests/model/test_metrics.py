"""The registry of metrics: one file each, found in order, light to import, with the gate's settings beside them."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sluice.core.check import compare_exact
from sluice.model.config import GateConfig
from sluice.model.evaluation import gate, metrics
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.results import Evaluation


def test_every_file_is_a_metric_in_the_order_of_the_names():
    names = [path.stem for path in sorted(Path(metrics.__path__[0]).glob("*.py")) if path.stem != "__init__"]
    assert names == ["bits_per_byte", "choice_accuracy", "golden_pass_rate", "latency"]
    modules = [sys.modules[f"{metrics.__name__}.{name}"] for name in names]
    assert [module.METRIC for module in modules] == list(METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_settings_of_the_gate_are_those_of_its_metrics(default_params):
    assert GateConfig().shown() == yaml.safe_load(default_params.read_text())["gate"]
    for metric in METRICS:
        assert set(metric.bounds.model_fields) <= set(GateConfig.model_fields)
    with pytest.raises(ValueError, match="max_bits_per_byte"):
        GateConfig(max_bits_per_byte=0)


def test_a_metric_more_is_checked_and_its_intervals_are_corrected_for(monkeypatch):
    def check(evaluation, bounds, confidence):
        return compare_exact("answers", 0.0, 1.0, good="above", n=1)

    added = replace(METRICS[-1], name="answers", check=check, intervals=2)
    monkeypatch.setattr(gate, "METRICS", [added])
    results = {"hashes": {"model": "a", "evaluation_set": "s"}, "planned": {}}
    verdict = gate.decide(Evaluation(results, {}), None, GateConfig())
    assert (verdict.outcome, verdict.reason) == ("reject", "answers 0.000 < 1.000, n=1")
    assert verdict.correction == "Bonferroni over 2 intervals: each at 97.50%"
