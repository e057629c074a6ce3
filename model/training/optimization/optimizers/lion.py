"""Lion on all parameters (Chen et al., arXiv 2302.06675)."""

from typing import Any

import torch

from sluice.model.config import PretrainConfig
from sluice.model.training.optimization.parameter_groups import Groups, decayed_and_not


def build(groups: Groups, config: PretrainConfig) -> torch.optim.Optimizer:
    return Lion(decayed_and_not(groups, config.learning_rate, config.weight_decay), betas=(config.beta1, config.beta2))


class Lion(torch.optim.Optimizer):
    """The sign of interpolated momentum, with decoupled weight decay.

    Every entry moves by the learning rate, so that rate is a third to a tenth of AdamW's, and the decay as many times
    larger. One moment to AdamW's two. Entry by entry, so ZeRO may cut the parameters anywhere.
    """

    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            newest, kept = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                direction = momentum.lerp(parameter.grad, 1 - newest).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - kept)
