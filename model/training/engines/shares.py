"""A process's part of a parameter."""

from typing import Any

import torch
from torch import nn


def share(parameter: nn.Parameter) -> float:
    """Weight of this process's copy in a norm: copies of one parameter on several processes count once together."""
    value: float = getattr(parameter, "norm_share", 1.0)
    return value


def own_range(parameter: Any) -> tuple[int, int]:
    """First element and number of elements of this rank's part under ZeRO 3, padding left out."""
    size = parameter.partition_numel()
    start = torch.distributed.get_rank(parameter.ds_process_group) * size
    return start, max(0, min(size, parameter.ds_numel - start))
