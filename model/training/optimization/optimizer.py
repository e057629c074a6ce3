"""Build the optimizer of a run and set its learning rate."""

from importlib import import_module

import torch
from torch import nn

from sluice.model.config import PretrainConfig
from sluice.model.training.optimization.parameter_groups import parameter_groups


def build_optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names, by `build` of the module of that name in `optimizers/`."""
    module = import_module(f"sluice.model.training.optimization.optimizers.{config.optimizer}")
    optimizer: torch.optim.Optimizer = module.build(parameter_groups(model), config)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Give every group `scale` times its peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
