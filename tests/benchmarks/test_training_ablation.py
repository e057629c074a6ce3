"""Recipes that each change one thing, in equal time, and a run that learns."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.training.ablation import Lane, held_out_bits, packings
from benchmarks.training.recipes import CHANGES, DEFAULT, UNDONE, Change, Recipe, in_equal_time, recipes, shortened
from sluice.data.config import TokenizerConfig
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.settings import TextConfig
from sluice.model.training.batches.text import pack_text

LAPTOP = PretrainConfig(
    workers=1,
    optimizer="muon",
    learning_rate=4e-3,
    steps=900,
    batch_size=8,
    micro_batch_size=8,
    warmup_steps=36,
    decay_fraction=0.5,
)
TINY = ModelConfig(
    hidden_size=32, layers=2, heads=2, kv_heads=2, pattern=("window", "attention"), window=2, qk_norm=True, context=32
)


@pytest.mark.parametrize("changes", [UNDONE, CHANGES])
def test_every_recipe_differs_from_all_others(changes: Mapping[str, Change]) -> None:
    found = recipes(LAPTOP, TINY, changes)
    assert [each.name for each in found] == [DEFAULT, *changes]
    assert len({(r.pretrain.model_dump_json(), r.model.model_dump_json(), r.packing) for r in found}) == len(found)


def test_the_default_of_before_is_another() -> None:
    *_, before = recipes(LAPTOP, TINY, UNDONE)
    assert before.name == "the default of before"
    assert (before.pretrain.batch_size, before.pretrain.decay_fraction) == (16, 1.0)
    assert before.model == ModelConfig(hidden_size=32, layers=2, heads=2, kv_heads=1, context=32)


def test_a_change_that_the_default_has_already_is_refused() -> None:
    with pytest.raises(ValueError, match="'z-loss of 1e-4' changes nothing"):
        recipes(LAPTOP.model_copy(update={"z_loss": 1e-4}), TINY, CHANGES)


@settings(deadline=None)
@given(
    steps=st.integers(10, 1000),
    seconds=st.dictionaries(st.sampled_from([*CHANGES]), st.floats(0.01, 10), min_size=1),
    own=st.floats(0.01, 10),
)
def test_equal_time_is_equal(steps: int, seconds: dict[str, float], own: float) -> None:
    found = in_equal_time(steps, {DEFAULT: own, **seconds})
    assert found[DEFAULT] == steps
    for name, each in seconds.items():
        assert found[name] >= 1
        assert abs(found[name] * each - steps * own) <= each


def test_a_shortened_run_keeps_its_shape() -> None:
    short = shortened(LAPTOP, 100, seed=7)
    assert (short.steps, short.warmup_steps, short.seed, short.workers) == (100, 4, 7, 1)
    assert (short.batch_size, short.optimizer, short.learning_rate) == (8, "muon", 4e-3)


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_run_learns_and_is_the_same_again(tmp_path: Path, average: float | None) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the same words again and again. " * 1500, encoding="utf-8")
    packed = pack_text(text, tmp_path, TextConfig(tokenizer="byte"), TokenizerConfig())
    config = PretrainConfig(
        workers=1, batch_size=4, micro_batch_size=4, learning_rate=1e-2, warmup_steps=60, average_decay=average
    )
    lane = Lane(Recipe(DEFAULT, config, TINY), packed.tokens, 30, 0)
    bits = held_out_bits(lane)
    assert bits < 5.0 < math.log2(257)
    assert bits == held_out_bits(lane)


def test_missing_artifacts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"index\.json is missing"):
        packings(tmp_path, TINY, tmp_path)
