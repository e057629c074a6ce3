"""The optimizer: AdamW or Lion on everything, or Muon on the matrices and AdamW on the rest."""

from typing import Any

import torch
from torch import nn

from sluice.model.config import PretrainConfig

Groups = dict[str, list[nn.Parameter]]

_TABLES = ("embedding.weight", "relative.weight", "head.weight")
"""Ends of the names of matrices that are indexed by a vocabulary, places or distances."""
_STACKED = ("feedforward.gate", "feedforward.up", "feedforward.down")
"""The matrices of all experts of a layer, [experts, out, in]."""


def parameter_groups(model: nn.Module) -> Groups:
    """The trained parameters by kind, in the model's order.

    `matrices` are the projections inside the layers, those of experts stacked; `embedding` is any matrix indexed by a
    vocabulary, places or distances (the head too); `vectors` are gains, biases, short filters and the like, which
    nothing decays.

    Raises ValueError for a parameter that no rule knows: what it would cost in the wrong group shows in no test.
    """
    owners = {id(each): module for module in model.modules() for each in module.parameters(recurse=False)}
    groups: Groups = {"matrices": [], "embedding": [], "vectors": []}
    for name, parameter in model.named_parameters():
        groups[_kind(name, parameter, owners[id(parameter)])].append(parameter)
    return groups


def _kind(name: str, parameter: nn.Parameter, owner: nn.Module) -> str:
    # A bias of stacked experts has a row for each.
    if parameter.ndim < 2 or name.endswith("_bias") or isinstance(owner, nn.Conv1d):
        return "vectors"
    # Before the projections: the head is one by its type.
    if name.endswith(_TABLES):
        return "embedding"
    if isinstance(owner, nn.Linear) or (parameter.ndim == 3 and name.endswith(_STACKED)):
        return "matrices"
    raise ValueError(
        f"no rule says how to train {name} of shape {list(parameter.shape)}, a parameter of {type(owner).__name__}: "
        "give it one in model/training/optimization/optimizer.py"
    )


def build_optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` asks for. `set_learning_rate` sets the rate of a step."""
    groups = parameter_groups(model)
    if config.optimizer == "muon":
        return _muon(groups, config)
    betas = (config.beta1, config.beta2)
    if config.optimizer == "lion":
        return Lion(_decayed_and_not(groups, config.learning_rate, config.weight_decay), betas=betas)
    return adamw(groups, config.learning_rate, weight_decay=config.weight_decay, betas=betas)


def adamw(
    groups: Groups, learning_rate: float, *, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decay on matrices only."""
    return torch.optim.AdamW(_decayed_and_not(groups, learning_rate, weight_decay), betas=betas, fused=True)


def _decayed_and_not(groups: Groups, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    return [
        _peak(groups["matrices"] + groups["embedding"], learning_rate, weight_decay=weight_decay),
        _peak(groups["vectors"], learning_rate, weight_decay=0.0),
    ]


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al., arXiv 2302.06675): the sign of interpolated momentum, with decoupled weight decay.

    Every entry moves by the learning rate, so that rate is a third to a tenth of AdamW's, and the decay as many times
    larger. One moment to AdamW's two. Entry by entry, so ZeRO may cut the parameters wherever it likes.
    """

    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
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


def leave_muon_uncompiled() -> None:
    """Before DeepSpeed's Muon is imported, which every engine does: it would be compiled there and then, for seconds,
    by a C++ compiler that may not be there and that its rounding would depend on.
    """
    from deepspeed.runtime import compiler

    compiler.compile = lambda: compiler.dummy_decorator


def _muon(groups: Groups, config: PretrainConfig) -> torch.optim.Optimizer:
    """Muon (Jordan et al., 2024) in DeepSpeed's version, which knows how to orthogonalize a matrix under ZeRO 1."""
    leave_muon_uncompiled()
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.muon import original_muon
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    if get_accelerator().device_name() == "cpu":
        # DeepSpeed takes float16 on processors that have it, so the same run would differ from one CPU to the next.
        original_muon.ns_compute_dtype = lambda _method="gram": torch.float32
    for kind, parameters in groups.items():
        for parameter in parameters:
            # ZeRO reads the mark from the parameter itself.
            parameter.use_muon = kind == "matrices"  # type: ignore[attr-defined]
    settings: dict[str, Any] = {"betas": (config.beta1, config.beta2), "eps": 1e-8, "use_muon": False}
    return MuonWithAuxAdam(
        [
            _peak(
                groups["matrices"],
                config.muon_learning_rate,
                weight_decay=config.weight_decay,
                momentum=config.muon_momentum,
                use_muon=True,
            ),
            # No decay on the embedding: its rows are pulled apart by the loss alone, as in the reference runs.
            _peak(groups["embedding"], config.learning_rate, weight_decay=0.0, **settings),
            _peak(groups["vectors"], config.learning_rate, weight_decay=0.0, **settings),
        ],
        adam_optimizer=torch.optim.AdamW,
        adam_optimizer_kwargs={"fused": True},
    )


def _peak(parameters: list[nn.Parameter], learning_rate: float, **settings: Any) -> dict[str, Any]:
    return {"params": parameters, "lr": learning_rate, "peak": learning_rate, **settings}


def set_learning_rate(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Give every group `scale` times its peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
