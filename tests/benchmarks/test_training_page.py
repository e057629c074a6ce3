"""A section that hides no miss, a request that is the common model, and plays that become speeches."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.model.shapes import SHAPES
from benchmarks.training.__main__ import cases
from benchmarks.training.case import Case, Measured, Results, Round, Shakespeare
from benchmarks.training.nanogpt import GPT, Recipe, held_out, rate_at, train
from benchmarks.training.page import render
from benchmarks.training.runs import request_of, round_of
from benchmarks.training.stand_in import speeches_of
from benchmarks.training.targets import Target, targets
from model.architecture.config import ModelConfig, TransformerConfig
from model.config import PretrainConfig


def results_of(ours: float, *, tiny: bool = True) -> Results:
    measured = [
        Measured(
            case=case,
            rounds=[
                Round(
                    tokens_per_second=ours if case.library == "sluice" else 1000.0,
                    peak_bytes=10**9,
                    loss=5.0,
                    checkpoint_share=0.01 if case.library == "sluice" else None,
                )
            ],
        )
        for case in cases(2)
    ]
    return Results(
        machine="a machine",
        libraries="torch",
        matmul={"fp32": 1e11, "bf16": 2e11},
        flops_per_token=1e7,
        measured=measured,
        data_share=0.01,
        shakespeare=Shakespeare(
            text="a text",
            is_tiny_shakespeare=tiny,
            ours=[1.5, 1.52],
            reference=1.88,
            parameters=800_000,
            tokens=1_536_000,
        ),
    )


def test_what_is_missed_is_named() -> None:
    page = render(results_of(1000.0))
    missed = [each.name for each in targets(results_of(1000.0)) if not each.is_met]
    assert len(missed) == 2
    assert all(name in page for name in missed) and page.count("**not met**") == 2
    assert "None is missed" in render(results_of(2000.0))


def test_a_figure_of_another_text_is_not_the_public_one() -> None:
    held = {each.name: each for each in targets(results_of(2000.0, tiny=False))}
    assert not held["tiny Shakespeare, nats a character"].is_met
    assert "This is not tiny Shakespeare" in render(results_of(2000.0, tiny=False))


def test_what_was_not_measured_is_not_met() -> None:
    assert not Target("x", math.nan, 1.0).is_met and not Target("x", math.nan, 1.0, at_least=False).is_met
    assert not any(each.is_met for each in targets(Results(machine="", libraries="")))
    with pytest.raises(ValueError, match="nothing was measured"):
        render(Results(machine="", libraries=""))


def test_every_case_of_the_trainer_has_one_of_ours() -> None:
    found = cases(2)
    settings = {(each.precision, each.compiled) for each in found if each.library == "transformers"}
    assert settings == {("fp32", False), ("bf16", True)}
    assert settings <= {(each.precision, each.compiled) for each in found if each.library == "sluice"}
    assert {each.ranks for each in found} == {1, 2}
    assert len({each.name for each in found}) == len(found)


def test_a_request_is_the_common_model(tmp_path: Path) -> None:
    case = Case(library="sluice", ranks=2)
    request = request_of(case, tmp_path, tmp_path, tmp_path)
    shape = SHAPES[case.shape]
    config = TransformerConfig.from_settings(ModelConfig.model_validate(request["model"]), shape.vocab_size)
    assert config == shape.config(case.sequence)
    run = PretrainConfig.model_validate(request["config"])
    assert (run.batch_size, run.workers, run.micro_batch_size) == (case.rows, 2, case.rows // 2)


def test_first_steps_do_not_count() -> None:
    case = Case(library="sluice", skipped=10)
    report: dict[str, Any] = {
        "final_loss": 5.0,
        "timings": {"train_seconds": 9.0, "checkpoint_seconds": 1.0, "speed": []},
    }
    with pytest.raises(RuntimeError, match="no row after step 10"):
        round_of(case, report)
    for step in (10, 20, 30, 40):
        row = {"step": float(step), "tokens_per_second": float(step), "memory_bytes": 7.0}
        report["timings"]["speed"].append(row)
    found = round_of(case, report)
    assert (found.tokens_per_second, found.checkpoint_share, found.peak_bytes) == (30.0, 0.1, 7)


def test_the_reference_has_the_published_size_and_learns() -> None:
    recipe = Recipe()
    assert sum(each.numel() for each in GPT(recipe, 65).parameters()) == 804_096
    assert rate_at(100, recipe) == recipe.rate and rate_at(recipe.steps, recipe) == pytest.approx(recipe.last_rate)
    small = Recipe(layers=1, heads=2, width=16, block=8, batch=8, steps=80, warmup=5, rate=1e-2)
    loss, _, _ = train("abcdefgh" * 100, small, seed=0)
    assert loss < 1.0 < math.log(8)


def test_every_held_out_target_counts_once() -> None:
    model = GPT(Recipe(layers=1, heads=2, width=16, block=8), 5)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    # All logits are zero: every target costs log 5 whatever the cut.
    for length in (2, 8, 9, 10, 33):
        assert held_out(model, torch.zeros(length, dtype=torch.int64), 8) == pytest.approx(math.log(5))


def test_a_play_becomes_speeches() -> None:
    play = (
        "SCENE I. A street.\n\n[Enter all.]\n\nFIRST CITIZEN.\r\nBefore we proceed[aside]--hear me   speak.\r\n\r\n"
        "ALL.\nSpeak, speak_!\n\nnot a speaker\nthis goes\n"
    )
    assert speeches_of(play) == [
        "First Citizen:\nBefore we proceed - hear me speak.\n",
        "All:\nSpeak, speak!\n",
    ]
