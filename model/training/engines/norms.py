"""Norms by part of the model, of what its processes hold together."""

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_GROUP = re.compile(r"((?:encoder\.|decoder\.)?layers\.\d+|[a-z_]+)\.?")


def layer_group(name: str) -> str:
    """The part of the model that a parameter belongs to: `layers.3`, or a module before or after the layers."""
    found = _GROUP.match(name)
    assert found, name
    return found[1]


def group_norms(
    names: Iterable[str],
    squares: Iterable[tuple[str, Tensor]],
    join: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, float]:
    """L2 norms by layer group of the whole model, whose parameters are `names` in its order.

    `squares` are of parameters that this process holds some of; `join` sums [groups] float64 over the processes.
    """
    groups = {group: place for place, group in enumerate(dict.fromkeys(map(layer_group, names)))}
    sums = torch.zeros(len(groups), dtype=torch.float64)
    for name, value in squares:
        sums[groups[layer_group(name)]] += value.cpu()
    return dict(zip(groups, join(sums).sqrt().tolist(), strict=True))
