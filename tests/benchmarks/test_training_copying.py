"""What counts as a copy, and a run whose loss is told apart by it."""

from itertools import pairwise
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.training.ablation import Lane
from benchmarks.training.copying import are_copies, copying_run
from benchmarks.training.recipes import COPYING, UNDONE, Recipe
from data.config import TokenizerConfig
from model.architecture.config import ModelConfig
from model.config import PretrainConfig
from model.training.batches.settings import TextConfig
from model.training.batches.text import pack_text


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


def test_copies_of_a_text_that_repeats_are_most_and_are_learned(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the same words again and again. " * 1500, encoding="utf-8")
    packed = pack_text(text, tmp_path, TextConfig(tokenizer="byte"), TokenizerConfig())
    config = PretrainConfig(workers=1, batch_size=4, micro_batch_size=4, learning_rate=1e-2, warmup_steps=4)
    model = ModelConfig(hidden_size=32, layers=1, heads=2, kv_heads=1, context=64)
    run = copying_run(Lane(Recipe("tiny", config, model), packed.tokens, 100, 0))
    assert run.steps == [50, 100]
    assert run.copies[1] < run.copies[0] < 4.0
