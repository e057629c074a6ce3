"""The optimizer: AdamW on everything, or Muon on the matrices and AdamW on the rest."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model.config import PretrainConfig

Groups = dict[str, list[nn.Parameter]]


def parameter_groups(model: nn.Module) -> Groups:
    """The trained parameters by kind, in the model's order.

    `matrices` are the projections inside the layers, those of experts stacked; `embedding` is any matrix indexed by a
    vocabulary, places or distances (the head too); `vectors` are gains, biases, short filters and the like, which
    nothing decays.
    """
    groups: Groups = {"matrices": [], "embedding": [], "vectors": []}
    for name, parameter in model.named_parameters():
        groups[_kind(name, parameter)].append(parameter)
    return groups


def _kind(name: str, parameter: nn.Parameter) -> str:
    if parameter.ndim < 2 or name.endswith(("_bias", "conv1d.weight")):
        return "vectors"
    if name.endswith(("embedding.weight", "relative.weight")) or name.startswith("head."):
        return "embedding"
    return "matrices"


def build_optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` asks for. `set_learning_rate` sets the rate of a step."""
    groups = parameter_groups(model)
    if config.optimizer == "muon":
        return _muon(groups, config)
    return adamw(groups, config.learning_rate, weight_decay=config.weight_decay, betas=(config.beta1, config.beta2))


def adamw(
    groups: Groups, learning_rate: float, *, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decay on matrices only."""
    return torch.optim.AdamW(
        [
            _peak(groups["matrices"] + groups["embedding"], learning_rate, weight_decay=weight_decay),
            _peak(groups["vectors"], learning_rate, weight_decay=0.0),
        ],
        betas=betas,
        fused=True,
    )


def _muon(groups: Groups, config: PretrainConfig) -> torch.optim.Optimizer:
    """Muon (Jordan et al., 2024) in DeepSpeed's version, which knows how to orthogonalize a matrix under ZeRO 1."""
    from deepspeed.runtime import compiler

    # DeepSpeed compiles the update at import. Building it with a C++ compiler costs more than a small run gains, and
    # its rounding would depend on that compiler.
    compiler.compile = lambda: compiler.dummy_decorator
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

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


def capture(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything the optimizer knows, by name: the parameters it steps and its moments.

    Under ZeRO 1 its parameters are this worker's flat float32 partitions, so the names and sizes hold for one rank of
    one world size.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in _named(optimizer):
        state[f"{name}.parameter"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            assert isinstance(value, Tensor), f"{name}.{key} is {type(value)}"
            state[f"{name}.{key}"] = value
    return state


@torch.no_grad()
def restore(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Put back what `capture` gave, to the last bit."""
    for name, parameter in _named(optimizer):
        parameter.copy_(state[f"{name}.parameter"])
        prefix = f"{name}."
        moments = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        del moments["parameter"]
        optimizer.state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in moments.items()}


def _named(optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, nn.Parameter]]:
    for i, group in enumerate(optimizer.param_groups):
        for j, parameter in enumerate(group["params"]):
            yield f"group{i}.{j}", parameter
