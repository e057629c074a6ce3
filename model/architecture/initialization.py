"""Initial weights of a model, drawn from a seed."""

import math

import torch
from torch import Tensor

from sluice.model.architecture.transformer import Transformer

_STD = 0.02
_INTO_THE_STREAM = ("attention.output.weight", "down.weight", "feedforward.down", "state_space.out_proj.weight")
"""Name endings of the weights whose products are added to the residual stream."""
_STEP_RANGE = (0.001, 0.1)
"""Initial time steps of a state space (Mamba, arXiv 2312.00752)."""


def initialize(model: Transformer, seed: int) -> None:
    """Draw every weight from `seed`: normal(0, 0.02), biases zero, norms one.

    The projections that write into the residual stream are scaled by 1/sqrt(sublayers of their stack), so that its
    variance does not grow with depth (GPT-2, Radford et al. 2019). State spaces are initialized like Mamba-2's (arXiv
    2405.21060).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = _STD
            if name.endswith(_INTO_THE_STREAM):
                # Two sublayers per layer, also without a feed-forward network; three if it reads a source.
                if name.startswith("encoder."):
                    sublayers = 2 * len(model.config.encoder_kinds)
                else:
                    sublayers = (2 if model.encoder is None else 3) * model.config.layers
                std = _STD / sublayers**0.5
            parameter.copy_(_draw(name, parameter.shape, std, generator))


def _draw(name: str, shape: torch.Size, std: float, generator: torch.Generator) -> Tensor:
    last = name.rpartition(".")[2]
    if last == "A_log":
        return torch.arange(1, shape[0] + 1).float().log()
    if last == "dt_bias":
        low, high = map(math.log, _STEP_RANGE)
        steps = torch.empty(shape).uniform_(low, high, generator=generator).exp()
        return steps + torch.log(-torch.expm1(-steps))  # inverse of softplus
    if name.endswith("conv1d.weight"):
        bound = shape[-1] ** -0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)
    if last.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.empty(shape).normal_(0.0, std, generator=generator)
