"""A request that is the common model, clocks that see a run, and a Trainer that begins where ours does."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.model import peer
from benchmarks.model.case import Case as ModelCase
from benchmarks.model.shapes import SHAPES
from benchmarks.training.case import BETAS, Case
from benchmarks.training.nanogpt import GPT, Recipe, held_out, rate_at, train
from benchmarks.training.peer import ROWS, WEIGHTS
from benchmarks.training.preset import curve_of, speeches_of
from benchmarks.training.runs import SEED, request_of, write_common
from benchmarks.training.watched import Watch, peak_bytes
from sluice.data.config import TokenizerConfig
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.settings import TextConfig
from sluice.model.training.batches.text import pack_text
from sluice.model.training.optimization.schedule import rate


def test_a_request_is_the_common_model(tmp_path: Path) -> None:
    case = Case(library="sluice", ranks=2)
    request = request_of(case, tmp_path, tmp_path, tmp_path)
    shape = SHAPES[case.shape]
    config = TransformerConfig.from_settings(ModelConfig.model_validate(request["model"]), shape.vocab_size)
    assert config == shape.config(case.sequence)
    assert config.dropout == config.attention_dropout == 0
    run = PretrainConfig.model_validate(request["config"])
    assert (run.batch_size, run.workers, run.micro_batch_size) == (case.rows, 2, case.rows // 2)
    assert (run.optimizer, run.beta1, run.beta2) == ("adamw", *BETAS)


def test_the_rate_falls_as_the_trainers_does(tmp_path: Path) -> None:
    from transformers import get_linear_schedule_with_warmup

    case = Case(library="sluice")
    config = PretrainConfig.model_validate(request_of(case, tmp_path, tmp_path, tmp_path)["config"])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, case.steps)
    for step in range(case.steps):
        assert rate(config, step) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_the_trainer_begins_where_ours_does(tmp_path: Path) -> None:
    """The written weights give transformers our first loss, on the rows that our first step reads."""
    from safetensors.torch import load_file

    case = Case(library="transformers", shape="smoke", sequence=32, rows=4, steps=3, skipped=1)
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i} and {i * i % 997} follow {i * 7 % 101}; " for i in range(3000)), encoding="utf-8")
    size = SHAPES["smoke"].vocab_size
    packed = pack_text(text, tmp_path, TextConfig(tokenizer="byte"), TokenizerConfig())
    write_common(case, packed.tokens, packed.tokenizer, tmp_path)
    rows = np.load(tmp_path / ROWS)
    assert rows.shape == (case.steps * case.rows, case.sequence) and rows.max() > 0
    ids = torch.from_numpy(rows[: case.rows])
    setting = ModelCase(work="train", library="transformers", shape="smoke", sequence=case.sequence)
    theirs = peer.common_loss(peer.build(setting, load_file(tmp_path / WEIGHTS)), ids)
    ours = Transformer(SHAPES["smoke"].config(case.sequence))
    initialize(ours, SEED)
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[:, -1] = False
    with torch.no_grad():
        total, count = cross_entropy_sum(ours, ids, ids.roll(-1, 1), counted)
    assert float(total / count) == pytest.approx(theirs, rel=1e-6)
    assert theirs == pytest.approx(math.log(size), rel=0.05)


@dataclass(frozen=True)
class _Loop:
    batch: Any
    other: int = 5


def test_clocks_see_each_step_and_change_nothing() -> None:
    watch = Watch()
    wait = watch.timed("communication", lambda value: value + 1)

    def optimizer_step(engine: str, loop: _Loop, number: int) -> tuple[str, int, int, int]:
        return engine, loop.other, loop.batch(number), wait(number)

    step = watch.step(optimizer_step)
    assert [step("engine", _Loop(lambda number: 10 * number), number) for number in range(2)] == [
        ("engine", 5, 0, 1),
        ("engine", 5, 10, 2),
    ]
    ticks = watch.ticks
    assert len(ticks.ends) == len(ticks.cpu) == len(ticks.data) == len(ticks.communication) == 2
    assert all(value > 0 for value in (*ticks.data, *ticks.communication))
    assert ticks.ends[0] < ticks.ends[1] and ticks.peak_bytes == peak_bytes() > 10**7


def test_a_curve_is_the_means_of_the_steps() -> None:
    rows = [{"step": step, "loss": float(step)} for step in range(1, 121)]
    log = "\n".join(json.dumps(row) for row in [*rows, {"step": 120, "validation_loss": 1.0}])
    assert curve_of(log) == [(50, 25.5), (100, 75.5), (120, 110.5)]


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
