"""Copies of earlier tokens, and a run whose loss is reported apart for them."""

import random
from itertools import pairwise
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.training.ablation import Lane, are_copies, copying_run
from benchmarks.training.recipes import COPYING, UNDONE, Recipe
from sluice.data.config import TokenizerConfig
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.settings import TextConfig
from sluice.model.training.batches.text import pack_text


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=9, max_size=9), min_size=1, max_size=4))
def test_a_copy_is_a_pair_that_stood_earlier_in_the_row(rows: list[list[int]]) -> None:
    tokens = torch.tensor(rows)
    found = are_copies(tokens[:, :-1], tokens[:, 1:])
    for row, told in zip(rows, found.tolist(), strict=True):
        pairs = list(pairwise(row))
        assert told == [pair in pairs[:place] for place, pair in enumerate(pairs)]


def test_the_runs_that_are_looked_at_exist() -> None:
    assert set(COPYING) - {*UNDONE} == {COPYING[0]}


def test_copies_are_learned_and_all_else_cannot_be(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = ("".join(draw.choices("abcdefghijklmnop", k=16)) for _ in range(3000))
    # Every letter and every pair is as likely: nothing but the copy is to be learned.
    text = tmp_path / "text.txt"
    text.write_text("".join(word * 2 for word in words), encoding="utf-8")
    packed = pack_text(text, tmp_path, TextConfig(tokenizer="character"), TokenizerConfig())
    config = PretrainConfig(workers=1, batch_size=16, micro_batch_size=16, learning_rate=1e-2, warmup_steps=10)
    model = ModelConfig(hidden_size=32, layers=2, heads=2, kv_heads=2, context=64)
    run = copying_run(Lane(Recipe("tiny", config, model), packed.tokens, 100, 0))
    assert run.steps == [50, 100] and run.learned_at == 100
    assert run.copies[1] < 2.0 and all(others > 2.7 for others in run.others)
