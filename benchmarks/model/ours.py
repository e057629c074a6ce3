"""Our model as a candidate."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.model.case import Case
from sluice.model.architecture.compiled import CompiledDecoder
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.linear_backends import FusedLinear
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.huggingface.state import from_huggingface


def build(case: Case, state: Mapping[str, Tensor] | None) -> Transformer:
    """The model on the case's device in its precision, with the weights of `state` or random ones."""
    model = Transformer(case.model.config(case.sequence))
    if state is None:
        initialize(model, seed=0)
    else:
        model.load_state_dict(from_huggingface(state, model.config))
    model.kernel = case.kernel
    return model.to(case.device, torch.bfloat16 if case.precision == "bf16" else torch.float32)


def trainer(model: Transformer, case: Case) -> Callable[[Tensor], Tensor]:
    """The loss of ids [rows, sequence] as training computes it."""
    if case.compiled:
        # By layer: one is compiled and all run it. What stands around them checks values, which no graph can hold.
        for layer in model.layers:
            layer.compile()

    def loss(ids: Tensor) -> Tensor:
        # The last token's successor is the first of its row: the work is that of a whole row of targets.
        total, count = cross_entropy_sum(model, ids, ids.roll(-1, 1))
        return total / count

    return loss


@torch.no_grad()
def common_loss(model: Transformer, ids: Tensor) -> float:
    """Mean loss of predicting each token of ids [rows, sequence] but the first."""
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, -1] = False
    total, count = cross_entropy_sum(model, ids, ids.roll(-1, 1), mask)
    return float(total / count)


def generator(model: Transformer, case: Case, new_tokens: int) -> Callable[[Tensor], list[int]]:
    """Greedy continuation of ids [1, prompt] with a cache."""
    model.eval()
    decoder = CompiledDecoder(model) if case.compiled else FusedLinear()
    return lambda ids: generate(model, ids[0].tolist(), new_tokens, GenerationOptions(decoder=decoder))
