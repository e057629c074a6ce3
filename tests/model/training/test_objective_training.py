"""Each objective teaches the kind of model that it is for what only the context tells."""

import math
from typing import Any

import architecture_fixtures as shapes
import numpy as np
import pytest
import torch

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import OBJECTIVE_KINDS, PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.batches.objectives import Objective, check_objective
from sluice.model.training.optimization.optimizer import build_optimizer

CONTEXT, ROWS, STEPS = 24, 16, 60
FIRST, LETTERS = 4, 12
"""The vocabulary: special tokens, then an alphabet."""
MODELS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "causal-adamw": ("causal", 3e-3, shapes.DECODERS["llama"]),
    "causal-lion": ("causal", 2e-3, shapes.DECODERS["llama"]),
    "masked-bert": ("masked", 3e-3, shapes.ENCODERS["bert"]),
    "masked-modern": ("masked", 3e-3, shapes.ENCODERS["modern_encoder"]),
    "span-t5": ("span", 2e-2, shapes.ENCODER_DECODERS["t5"]),
    "span-modern": ("span", 3e-3, shapes.ENCODER_DECODERS["modern_encoder_decoder"]),
}


def rows_of(step: int) -> np.ndarray:
    """[rows, context + 1]: a letter of its own in each row, over and over."""
    letters = np.random.Generator(np.random.PCG64(step)).integers(LETTERS, size=(ROWS, 1))
    return np.repeat(FIRST + letters, CONTEXT + 1, axis=1)


def mean_nats(model: Transformer, batch: Batch) -> torch.Tensor:
    """Nats a counted token."""
    nats, count = cross_entropy_sum(model, batch.ids, batch.targets, batch.mask, **batch.inputs)
    assert int(count) == batch.tokens > 0
    return nats / count


@pytest.mark.parametrize("name", MODELS)
def test_what_the_context_tells_is_learned(name: str) -> None:
    learned, rate, options = MODELS[name]
    config = PretrainConfig(
        objective=learned, optimizer="lion" if name == "causal-lion" else "adamw", learning_rate=rate
    )
    objective = Objective.of(config, FIRST + LETTERS, eos=0, special=range(FIRST))
    fields = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "context": CONTEXT, **options}
    shape = TransformerConfig(**fields, vocab_size=objective.model_vocabulary)
    assert shape.kind == OBJECTIVE_KINDS[learned]
    check_objective(config, shape, "concatenated")
    model = Transformer(TransformerConfig.from_settings(shape, shape.vocab_size))
    initialize(model, 0)
    optimizer = build_optimizer(model, config)
    for step in range(STEPS):
        loss = mean_nats(model, objective.batch(rows_of(step), None, step * ROWS + np.arange(ROWS), CONTEXT))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    unseen = objective.batch(rows_of(STEPS), None, STEPS * ROWS + np.arange(ROWS), CONTEXT)
    # Without the context every letter is as likely as another.
    after = float(mean_nats(model, unseen).detach())
    assert after < 0.6 * math.log(LETTERS)
