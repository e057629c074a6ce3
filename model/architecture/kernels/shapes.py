"""Whether queries, keys, values and their visibility belong together."""

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import Visibility
from sluice.model.architecture.kernels import masks


def check(queries: Tensor, keys: Tensor, values: Tensor, visibility: Visibility) -> None:
    """Raises ValueError that names the shapes where they do not."""
    if queries.ndim != 4 or keys.ndim != 4 or keys.shape != values.shape:
        raise ValueError(
            f"queries {_shape(queries)} must be [batch, queries, heads, size], keys {_shape(keys)} and values "
            f"{_shape(values)} alike [batch, keys, kv_heads, size]"
        )
    batch, length, heads, size = queries.shape
    if keys.shape[0] != batch or keys.shape[3] != size or heads % keys.shape[2]:
        raise ValueError(
            f"keys {_shape(keys)} must have the batch and head size of queries {_shape(queries)}, and a number of "
            "heads that divides theirs"
        )
    sizes = batch, length, keys.shape[1], heads
    if visibility.plain:
        restricts = visibility.window, visibility.query_documents, visibility.key_mask
        assert all(part is None for part in (*restricts, visibility.bias, visibility.slopes)), "not plain"
        if visibility.causal and length != keys.shape[1]:
            raise ValueError(f"plain causal attention needs as many queries as keys, not {length} and {keys.shape[1]}")
        return
    masks.remembered(visibility, f"checked {sizes}", lambda: _check_visibility(visibility, *sizes))


def _check_visibility(visibility: Visibility, batch: int, queries: int, keys: int, heads: int) -> None:
    if (visibility.query_documents is None) != (visibility.key_documents is None):
        raise ValueError("documents must be given for queries and keys alike, or for neither")
    rows = sorted({1, batch})
    expected: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "query_positions": (visibility.query_positions, [(row, queries) for row in rows]),
        "key_positions": (visibility.key_positions, [(row, keys) for row in rows]),
        "query_documents": (visibility.query_documents, [(row, queries) for row in rows]),
        "key_documents": (visibility.key_documents, [(row, keys) for row in rows]),
        "key_mask": (visibility.key_mask, [(row, keys) for row in rows]),
        "bias": (visibility.bias, [(row, heads, queries, keys) for row in rows]),
        "slopes": (visibility.slopes, [(heads,)]),
    }
    for name, (tensor, shapes) in expected.items():
        if tensor is not None and tuple(tensor.shape) not in shapes:
            allowed = " or ".join(map(str, map(list, reversed(shapes))))
            raise ValueError(f"{name} has shape {_shape(tensor)}, and must have {allowed}")
    if visibility.key_mask is not None and visibility.key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be bool (True: a real key), not {visibility.key_mask.dtype}")


def _shape(x: Tensor) -> list[int]:
    return list(x.shape)
