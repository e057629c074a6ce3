"""Whole steps on a GPU: which are run, how they are cut to fit, and what is said where one cannot run."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from benchmarks.model.shapes import SHAPES
from benchmarks.training import accelerator
from benchmarks.training import run as bench
from benchmarks.training.accelerator import SMOKE, Plan, cases, fitted, measure, narrower, write_tokens
from benchmarks.training.case import Case, Round
from benchmarks.training.launcher import OutOfMemory
from benchmarks.training.results import Conditions, TrainingOnGpu, TrainingResults
from benchmarks.training.runs import _run, request_of, run_once
from sluice.data.packing import PackedTokens
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.rules import check


def round_() -> Round:
    return Round(tokens_per_second=10.0, peak_bytes=1, cpu_seconds=1.0, first_loss=1.0, mean_loss=1.0)


def test_the_cases_are_runs_that_can_be(tmp_path: Path) -> None:
    found = [case for shape in Plan().shapes for case in cases(shape, Plan(), 1)]
    assert [(case.shape, case.compiled) for case in found] == [
        ("350M", False),
        ("350M", True),
        ("1B", False),
        ("1B", True),
    ]
    for case in found:
        assert (case.rows * case.sequence, case.device, case.precision) == (16_384, "cuda", "bf16")
        for cut in narrower(case):
            request = request_of(cut, tmp_path, tmp_path, tmp_path)
            config = PretrainConfig.model_validate(request["config"])
            check(config, ModelConfig.model_validate(request["model"]), cuda=True)
            assert (config.workers, config.zero_stage, config.batch_size) == (1, 1, 8)


def test_micro_batches_are_halved_until_they_fit_and_recomputed_only_then() -> None:
    case, tried = cases("350M", Plan(), 1)[0], list[tuple[int | None, bool]]()

    def run(cut: Case) -> Round:
        tried.append((cut.micro_rows, cut.recomputed))
        if len(tried) < 6:
            raise OutOfMemory("CUDA out of memory")
        return round_()

    found = fitted(case, 2, run)
    assert tried == [(8, False), (4, False), (2, False), (1, False), (8, True), (4, True), (4, True)]
    assert (found.case.micro_rows, found.case.recomputed, len(found.rounds)) == (4, True, 2)


def test_another_failure_is_not_tried_again() -> None:
    tried = []

    def run(cut: Case) -> Round:
        tried.append(cut)
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        fitted(cases("350M", Plan(), 1)[0], 1, run)
    assert len(tried) == 1


def test_a_refused_candidate_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(case: Case, **_: Path) -> Round:
        if case.compiled:
            raise OutOfMemory(f"{case.name}: out of memory")
        return round_()

    monkeypatch.setattr(accelerator, "run_once", run)
    monkeypatch.setattr(
        accelerator,
        "_describe",
        lambda *_: TrainingOnGpu(device="x", libraries="", peak_flops=None, matmul_flops=1.0),
    )
    found = measure(SMOKE, tmp_path, rounds=1, threads=1)
    assert found is not None
    assert [each.case.compiled for each in found.measured] == [False]
    assert list(found.refused) == ["smoke, sluice, bf16, compiled"]
    assert "out of memory" in found.refused["smoke, sluice, bf16, compiled"]
    assert math.isnan(found.best("350M")) and found.best("smoke") == 10 * SHAPES["smoke"].training_flops(32)


def test_without_a_gpu_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accelerator, "at_hand", lambda: False)
    assert measure(Plan(), tmp_path, rounds=1, threads=1) is None
    monkeypatch.setattr("sys.argv", ["bench", "--only", "accelerator"])
    with pytest.raises(SystemExit, match="no GPU is available"):
        bench.measure(bench._arguments(), None, lambda _: None)


def test_a_run_that_ends_for_want_of_memory_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    show = "import os, sys; sys.exit(os.environ['CUDA_VISIBLE_DEVICES'] + '|RuntimeError: CUDA out of memory')"
    import sys

    case = cases("smoke", SMOKE, 1)[0]
    with pytest.raises(OutOfMemory, match=r": \|RuntimeError"):
        _run(case, [sys.executable, "-c", show])
    with pytest.raises(OutOfMemory, match=r": 3\|RuntimeError"):
        _run(case.model_copy(update={"device": "cuda"}), [sys.executable, "-c", show])
    with pytest.raises(RuntimeError) as other:
        _run(case, [sys.executable, "-c", "raise ValueError('x')"])
    assert not isinstance(other.value, OutOfMemory) and "ValueError: x" in str(other.value)


@pytest.mark.parametrize("only", [["--only", "shakespeare"], []])
def test_figures_of_before_stay_where_a_run_has_none(
    only: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = TrainingOnGpu(device="x", libraries="", peak_flops=None, matmul_flops=1.0)
    before = tmp_path / "before.json"
    conditions = {"choices": Conditions(machine="old", libraries="", cores=7, load=0.0)}
    before.write_text(TrainingResults(conditions=conditions, accelerated=kept).model_dump_json())
    monkeypatch.setattr(accelerator, "at_hand", lambda: False)
    monkeypatch.setattr(bench, "_measure_processor", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["bench", *only])
    heard: list[TrainingResults] = []
    found = bench.measure(bench._arguments(), before, heard.append)
    assert found.accelerated == kept and all(each.accelerated == kept for each in heard)
    assert found.conditions == conditions


def test_tokens_are_of_the_whole_vocabulary_and_enough(tmp_path: Path) -> None:
    plan = dataclasses.replace(SMOKE, steps=20)
    packed = write_tokens(tmp_path / "smoke", "smoke", plan)
    train, valid = PackedTokens(packed.tokens, "train"), PackedTokens(packed.tokens, "valid")
    tokens = train.tokens.read(0, len(train.tokens))
    assert len(tokens) > plan.steps * SHAPES["smoke"].step_tokens and len(valid.tokens) > plan.sequence
    assert tokens.max() == SHAPES["smoke"].vocab_size - 1 and len(set(tokens.tolist())) > 400
    assert json.loads((packed.tokens / "index.json").read_text())["vocab_size"] == SHAPES["smoke"].vocab_size


def test_a_whole_run_without_ray_on_the_processor(tmp_path: Path) -> None:
    """The run of a GPU, on a tiny model: the product's loop in a process of its own."""
    packed = write_tokens(tmp_path / "smoke", "smoke", SMOKE)
    case = cases("smoke", SMOKE, 1)[0]
    found = fitted(case, 1, lambda cut: run_once(cut, *packed))
    assert found.case.micro_rows == case.rows and not found.case.recomputed
    assert found.rate > 0 and found.rounds[0].first_loss == pytest.approx(
        math.log(SHAPES["smoke"].vocab_size), rel=0.05
    )
