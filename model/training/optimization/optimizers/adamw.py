"""AdamW on all parameters (Loshchilov and Hutter, arXiv 1711.05101)."""

import torch

from sluice.model.config import PretrainConfig
from sluice.model.training.optimization.parameter_groups import Groups, decayed_and_not


def build(groups: Groups, config: PretrainConfig) -> torch.optim.Optimizer:
    return adamw(groups, config.learning_rate, weight_decay=config.weight_decay, betas=(config.beta1, config.beta2))


def adamw(
    groups: Groups, learning_rate: float, *, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    return torch.optim.AdamW(decayed_and_not(groups, learning_rate, weight_decay), betas=betas, fused=True)
