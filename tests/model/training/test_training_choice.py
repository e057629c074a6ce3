"""Candidates of a sweep, rungs of a ladder, and the run in one process that both are made of."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.parameters import count_parameters
from sluice.model.training.batches.text import Packed
from sluice.model.training.search.shapes import alternatives, ladder, scaled
from sluice.model.training.search.sweep import RATE_RANGE, Candidate, TrialOutcome, best, candidates
from sluice.model.training.telemetry.profiling import PHASES, TRACE, profile_steps
from sluice.model.training.trial import run_trial, single_process

MODEL = ModelConfig(hidden_size=128, layers=4, heads=4, kv_heads=2, context=32)
SMALL = ModelConfig(hidden_size=16, layers=1, heads=2, kv_heads=1, context=32, intermediate_multiple=8)
CONFIG = PretrainConfig(
    workers=1, steps=6, batch_size=4, micro_batch_size=2, warmup_steps=2, validate_every=4, validation_batches=2
)


def test_a_ladder_rises_to_the_model() -> None:
    rungs = ladder(MODEL, 4)
    sizes = [count_parameters(TransformerConfig.from_settings(rung, 100)).total for rung in rungs]
    assert sizes == sorted(set(sizes)) and len(sizes) == 4
    assert rungs[-1] == MODEL
    assert all(rung.head_width == MODEL.head_width for rung in rungs)


def test_a_ladder_of_few_heads_and_layers_has_all_the_rungs_that_differ() -> None:
    laptop = ModelConfig(hidden_size=128, layers=4, heads=2, kv_heads=2, pattern=("window", "attention"), window=2)
    sizes = [(rung.hidden_size, rung.layers) for rung in ladder(laptop, 4)]
    assert sizes == [(64, 2), (64, 3), (128, 3), (128, 4)]
    assert ladder(laptop, 9)[-1] == laptop and len(ladder(laptop, 9)) == 4


@settings(deadline=None)
@given(
    width=st.floats(0.2, 4.0),
    depth=st.floats(0.1, 4.0),
    heads=st.sampled_from([1, 2, 4, 8]),
    shared=st.sampled_from([1, 2, 4]),
)
def test_a_scaled_model_is_a_legal_one(width: float, depth: float, heads: int, shared: int) -> None:
    model = ModelConfig(hidden_size=16 * heads, heads=heads, kv_heads=max(1, heads // shared), layers=6, context=32)
    found = scaled(model, width, depth)
    assert found.head_width == 16 and found.layers >= 1


def test_a_model_of_fixed_sizes_has_no_ladder() -> None:
    with pytest.raises(ValueError, match=r"leave model\.intermediate_size"):
        scaled(MODEL.model_copy(update={"intermediate_size": 100}), 0.5, 0.5)
    with pytest.raises(ValueError, match="at least 2"):
        ladder(MODEL, 1)


def test_alternatives_are_of_about_one_size() -> None:
    found = [count_parameters(TransformerConfig.from_settings(each, 100)).total for each in alternatives(MODEL)]
    assert len(found) == 3
    assert max(found) < 1.8 * min(found)


@settings(deadline=None)
@given(trials=st.integers(2, 30), seed=st.integers(0, 2**32))
def test_candidates_begin_with_the_settings_and_spread(trials: int, seed: int) -> None:
    found = candidates(CONFIG, MODEL, trials, seed)
    assert found == candidates(CONFIG, MODEL, trials, seed)
    assert (len(found), found[0].model, found[0].config) == (trials, MODEL, CONFIG)
    assert all(1 / RATE_RANGE <= each.rate <= RATE_RANGE for each in found)
    for shape in alternatives(MODEL):
        rates = [each.rate for each in found[1:] if each.model == shape]
        assert rates == sorted(rates)


def test_the_best_ran_to_the_end() -> None:
    tried = candidates(CONFIG, MODEL, 3, 0)
    outcomes = [TrialOutcome(tried[0], 2.0, 6), TrialOutcome(tried[1], 1.0, 4), TrialOutcome(tried[2], math.nan, 6)]
    assert best(outcomes).candidate == tried[0]
    with pytest.raises(ValueError, match=r"lower pretrain\.learning_rate"):
        best([TrialOutcome(tried[0], math.inf, 6)])
    with pytest.raises(ValueError, match="at least 2"):
        candidates(CONFIG, MODEL, 1, 0)
    assert isinstance(tried[0], Candidate)


def packed_in(corpus: Path) -> Packed:
    return Packed(corpus / "pack", corpus / "tokenizer")


def test_a_trial_repeats_and_reports_its_validations(packed_corpus: Path) -> None:
    heard: list[tuple[int, float]] = []
    first = run_trial(CONFIG, SMALL, packed_in(packed_corpus), report=lambda step, loss: heard.append((step, loss)))
    assert [step for step, _ in heard] == [4, 6]
    assert heard[-1][1] == first.validation_loss
    assert first.tokens == 6 * 4 * 32
    again = run_trial(CONFIG, SMALL, packed_in(packed_corpus))
    assert again.validation_loss.hex() == first.validation_loss.hex()
    assert [row["loss"].hex() for row in again.log if "loss" in row] == [
        row["loss"].hex() for row in first.log if "loss" in row
    ]


def test_a_trial_with_dropout_repeats(packed_corpus: Path) -> None:
    dropping = SMALL.model_copy(update={"dropout": 0.3})
    first, again = (run_trial(CONFIG, dropping, packed_in(packed_corpus)).validation_loss for _ in range(2))
    assert first.hex() == again.hex()


@pytest.mark.parametrize(("objective", "kind"), [("masked", "encoder"), ("span", "encoder-decoder")])
def test_a_trial_has_the_objectives_own_tokens(packed_corpus: Path, objective: str, kind: str) -> None:
    config = PretrainConfig.model_validate(CONFIG.model_dump() | {"objective": objective})
    model = ModelConfig.model_validate(SMALL.model_dump() | {"kind": kind})
    assert math.isfinite(run_trial(config, model, packed_in(packed_corpus)).validation_loss)


def test_what_a_trial_does_not_do_is_refused() -> None:
    for setting in ({"dtype": "bf16"}, {"average_decay": 0.9}, {"skip_sigma": 6.0}):
        with pytest.raises(ValueError, match="plain fp32 runs"):
            single_process(CONFIG.model_copy(update=setting))


def test_a_profile_has_a_trace_and_its_phases(packed_corpus: Path, tmp_path: Path) -> None:
    found = profile_steps(CONFIG, SMALL, packed_in(packed_corpus), tmp_path, steps=1)
    assert (tmp_path / TRACE).stat().st_size > 1000
    assert set(found.phases_ms) == set(PHASES)
    assert all(phase_ms > 0 for phase_ms in found.phases_ms.values())
    assert found.step_ms == pytest.approx(sum(found.phases_ms.values()))
    assert 0 < sum(each.share for each in found.operators) <= 1
    assert found.operators == sorted(found.operators, key=lambda each: -each.self_ms)
