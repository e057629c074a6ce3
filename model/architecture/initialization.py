"""Initial weights of a model, drawn from a seed."""

import math

import torch

from sluice.model.architecture.pointwise import RMSNorm
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
    less_one = {f"{name}.weight" for name, each in model.named_modules() if isinstance(each, RMSNorm) and each.plus_one}
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
            last, empty = name.rpartition(".")[2], torch.empty(parameter.shape)
            if last == "A_log":
                drawn = torch.arange(1, len(empty) + 1).float().log()
            elif last == "dt_bias":
                low, high = map(math.log, _STEP_RANGE)
                steps = empty.uniform_(low, high, generator=generator).exp()
                drawn = steps + torch.log(-torch.expm1(-steps))  # inverse of softplus
            elif name.endswith("conv1d.weight"):
                bound = empty.shape[-1] ** -0.5
                drawn = empty.uniform_(-bound, bound, generator=generator)
            elif last.endswith("bias") or name in less_one:
                drawn = empty.zero_()
            elif empty.ndim == 1:
                drawn = empty.fill_(1)
            else:
                drawn = empty.normal_(0.0, std, generator=generator)
            parameter.copy_(drawn)
