"""The parameters of a model by how they are optimized: matrices, embedding and vectors."""

from typing import Any

from torch import nn

Groups = dict[str, list[nn.Parameter]]

_TABLES = ("embedding.weight", "relative.weight", "head.weight")
"""Ends of the names of matrices that are indexed by a vocabulary, positions or distances."""
_STACKED = ("feedforward.gate", "feedforward.up", "feedforward.down")
"""The matrices of all experts of a layer, [experts, out, in]."""


def parameter_groups(model: nn.Module) -> Groups:
    """The trained parameters by kind, in the model's order.

    `matrices` are the projections inside the layers, those of experts stacked; `embedding` is any matrix indexed by a
    vocabulary, positions or distances (the head too); `vectors` are gains, biases, short filters and the like, which
    are never decayed.

    Raises ValueError for a parameter that belongs to no group: no test would show the cost of the wrong one.
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
        f"no group for parameter {name} of shape {list(parameter.shape)} of {type(owner).__name__}: "
        "add a case to model/training/optimization/parameter_groups.py"
    )


def decayed_and_not(groups: Groups, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of an optimizer: matrices and embedding with weight decay, vectors without."""
    return [
        with_peak(groups["matrices"] + groups["embedding"], learning_rate, weight_decay=weight_decay),
        with_peak(groups["vectors"], learning_rate, weight_decay=0.0),
    ]


def with_peak(parameters: list[nn.Parameter], learning_rate: float, **settings: Any) -> dict[str, Any]:
    """A group of an optimizer with its peak learning rate, which `set_learning_rate` scales."""
    return {"params": parameters, "lr": learning_rate, "peak": learning_rate, **settings}
