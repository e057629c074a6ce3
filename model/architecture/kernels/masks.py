"""What kernels make of a Visibility, made once for all the layers that share it."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import Visibility

T = TypeVar("T")


def remembered(visibility: Visibility, name: Hashable, make: Callable[[], T]) -> T:
    """`make()`, kept with the visibility under `name`. A compiler sees equal computations and merges them itself."""
    if torch.compiler.is_compiling():
        return make()
    kept: dict[Hashable, Any] = visibility.__dict__.setdefault("_kernels", {})
    if name not in kept:
        kept[name] = make()
    return kept[name]


def blind(visibility: Visibility) -> Tensor | None:
    """[batch or 1, queries] bool, True where a query sees no key; None where it is known that there is none such."""

    def make() -> Tensor | None:
        sees = visibility.allowed[:, 0].any(dim=-1)
        # Elsewhere the question would stall the device's queue, or break a compiled graph.
        if sees.device.type == "cpu" and not torch.compiler.is_compiling() and bool(sees.all()):
            return None
        return ~sees

    return None if visibility.plain else remembered(visibility, "blind", make)


def allowed(visibility: Visibility) -> Tensor:
    """[batch or 1, 1, queries, keys] bool. A blind query is let see the first key, so that no softmax runs over
    nothing, and what comes out for it has to be `wiped`.
    """

    def make() -> Tensor:
        nothing = blind(visibility)
        if nothing is None:
            return visibility.allowed
        first = torch.arange(visibility.allowed.shape[-1], device=nothing.device) == 0
        return visibility.allowed | (nothing[:, None, :, None] & first)

    return remembered(visibility, "allowed", make)


def added(visibility: Visibility, dtype: torch.dtype) -> Tensor | None:
    """[batch or 1, heads, queries, keys]: added to the scores, -inf where unseen; None where a bool mask does."""
    additive = visibility.additive
    if additive is None:
        return None

    def make() -> Tensor:
        return additive.to(dtype).masked_fill(~allowed(visibility), -torch.inf)

    # A part of the graph belongs to one layer: checkpointing runs a layer again, and must find the same operations.
    return make() if additive.requires_grad else remembered(visibility, f"added {dtype}", make)


def wiped(mixed: Tensor, visibility: Visibility) -> Tensor:
    """[batch, queries, heads, size] with zeros for the blind queries."""
    nothing = blind(visibility)
    return mixed if nothing is None else mixed.masked_fill(nothing[:, :, None, None], 0.0)
