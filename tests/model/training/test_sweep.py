"""A sweep under Ray Tune: the worse trials end early, and one that diverges is an answer."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.text import Packed
from sluice.model.training.search.sweep import Candidate, TrialOutcome, _outcome, best, run_sweep

MODEL = ModelConfig(hidden_size=16, layers=1, heads=2, kv_heads=1, context=16, intermediate_multiple=8)
CONFIG = PretrainConfig(
    workers=1,
    steps=8,
    batch_size=4,
    micro_batch_size=4,
    learning_rate=0.02,
    warmup_steps=1,
    validate_every=2,
    validation_batches=1,
)


# What Ray gives back of the trial of candidate(1).
PLAIN = {"model": MODEL.model_dump(mode="json"), "config": CONFIG.model_dump(mode="json"), "rate": 1.0}


def candidate(rate: float, **changed: float) -> Candidate:
    learning_rate = CONFIG.learning_rate * rate
    return Candidate(MODEL, CONFIG.model_copy(update={"learning_rate": learning_rate, **changed}), rate)


@pytest.fixture(scope="module")
def outcomes(ray_head: str, packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrialOutcome]:
    """One after the other, so that each is held to those before it: one that learns, one that breaks, and one that
    is too slow.
    """
    tried = [candidate(1), candidate(1e30), candidate(1e-5)]
    return run_sweep(
        tried, Packed(packed_corpus / "pack", packed_corpus / "tokenizer"), tmp_path_factory.mktemp("sweep"), at_once=1
    )


def test_the_worse_ends_early_and_the_best_ran_to_the_end(outcomes: list[TrialOutcome]) -> None:
    found = {each.candidate.rate: each for each in outcomes}
    assert set(found) == {1, 1e30, 1e-5}
    slow, chosen = found[1e-5], best(outcomes)
    # At its first validation there was a better one already.
    assert slow.step == CONFIG.validate_every and math.isfinite(slow.validation_loss)
    assert chosen.step == CONFIG.steps and chosen is found[1]
    assert chosen.validation_loss < slow.validation_loss


def test_a_rate_that_diverges_is_an_answer(outcomes: list[TrialOutcome]) -> None:
    [broken] = [each for each in outcomes if each.candidate.rate == 1e30]
    assert broken.validation_loss == math.inf
    assert len([each for each in outcomes if math.isfinite(each.validation_loss)]) == 2


def test_a_trial_that_cannot_run_is_named_with_its_reason() -> None:
    from ray.exceptions import RayTaskError

    reason = ValueError("8 steps read 9 epochs")
    error = RayTaskError("train", "Traceback (most recent call last):\n  ..", reason).as_instanceof_cause()
    result = SimpleNamespace(config={"candidate": PLAIN}, error=error)
    with pytest.raises(RuntimeError, match=r"^trial .*, rate x 1\.00: 8 steps read 9 epochs$"):
        _outcome([candidate(1)], result)


def test_a_sweep_that_was_cut_short_is_no_result() -> None:
    result = SimpleNamespace(config={"candidate": PLAIN}, error=None, metrics={})
    with pytest.raises(RuntimeError, match=r"rate x 1\.00 ended before its first validation$"):
        _outcome([candidate(1)], result)
