"""Conversion of a model's weights from and to the names and layouts of a family."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.huggingface.config import family_of
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.weights import Shapes, from_theirs, to_theirs

_BUFFERS = re.compile(
    r"(.*\.)?(rotary_emb\.(original_)?(inv_freq|cos_cached|sin_cached)|(attn|attention)\.masked_bias|position_ids)"
)
"""Constants that older versions of transformers stored with the weights of any family, and compute today."""
_QUANTIZED_PARTS = {
    ".g_idx": "GPTQ",
    ".qweight": "GPTQ or AWQ",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_scale": "fp8 or compressed-tensors",
    ".weight_scale_inv": "fp8",
    ".weight_packed": "compressed-tensors",
}
"""Endings of names beside quantized weights -> the method."""


@dataclass(frozen=True)
class FamilyWeights:
    """A family's weights under its current names, before conversion to ours."""

    weights: dict[str, Tensor]
    own_head: bool
    """Whether there is an output head that is not the embedding."""
    left_out: tuple[str, ...]
    """Names of weights that affect no logit or are second copies."""


def tidy(state: Mapping[str, Tensor], family: Family, *, tied: bool) -> FamilyWeights:
    """Rename weights of older checkpoints, and drop weights that affect no logit.

    `tied`: according to config.json the output head is the embedding, so that a head with equal values is a copy.
    Raises ValueError if two weights differ that the family shares, or that have the same name today.
    """
    weights: dict[str, Tensor] = {}
    for name, weight in state.items():
        now = name
        for pattern, replacement in family.renamed.items():
            now = re.sub(pattern, replacement, now)
        if now in weights and not torch.equal(weights[now], weight):
            raise ValueError(f"weight {now} is there under two names, such as {name}, with different values")
        weights[now] = weight
    unused = [_BUFFERS, *map(re.compile, family.unused)]
    left_out = {name for name in weights if any(pattern.fullmatch(name) for pattern in unused)}
    for name, source in family.copies.items():
        if name not in weights or source not in weights or (name == family.head and not tied):
            continue
        if torch.equal(weights[name], weights[source]):
            left_out.add(name)
        elif name != family.head:
            raise ValueError(f"weight {name} differs from {source}, and only one weight for both is supported")
    kept = {name: weight for name, weight in weights.items() if name not in left_out}
    return FamilyWeights(kept, family.head in kept, tuple(sorted(left_out)))


def to_huggingface(
    state: Mapping[str, Tensor], config: TransformerConfig, family: Family | None = None
) -> dict[str, Tensor]:
    """Convert our state dict to the family's; by default to the family that expresses the configuration, or keep our
    names if there is none.
    """
    family = family or family_of(config)
    if family is None:
        return {name: weight.contiguous().clone() for name, weight in state.items()}
    return to_theirs(state, family.weights(config))


def from_huggingface(
    state: Mapping[str, Tensor], config: TransformerConfig, family: Family | None = None
) -> dict[str, Tensor]:
    """Inverse of `to_huggingface`. Raises ValueError for a weight that is missing, unknown, quantized or of another
    shape.
    """
    for ending, method in _QUANTIZED_PARTS.items():
        if named := next((name for name in state if name.endswith(ending)), None):
            raise ValueError(f"weight {named}: weights quantized by {method} are not read; dequantize them first")
    for name, weight in state.items():
        # 8-bit floating point is quantized too: its scales are stored apart.
        if not weight.is_floating_point() or weight.element_size() < 2:
            raise ValueError(f"weight {name} is {weight.dtype}: quantized weights are not read; dequantize them first")
    family = family or family_of(config)
    if family is None:
        return own_weights(state, config)
    return from_theirs(state, family.weights(config), expected_shapes(config))


def own_weights(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Check weights under our own names. Raises ValueError for one that is missing, unknown or of another shape."""
    expected = expected_shapes(config)
    if missing := sorted(expected.keys() - state.keys()):
        raise ValueError(f"weight '{missing[0]}' is missing")
    if unknown := sorted(state.keys() - expected.keys()):
        raise ValueError(f"unknown weights {unknown[:4]}")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise ValueError(f"weight {name} has shape {tuple(state[name].shape)}, but config.json asks for {shape}")
    return dict(state)


def expected_shapes(config: TransformerConfig) -> Shapes:
    """Our names and shapes of all weights of a model, without allocating them."""
    return {name: tuple(weight.shape) for name, weight in skeleton(config).state_dict().items()}


def skeleton(config: TransformerConfig) -> Transformer:
    """Model on the meta device: its weights have shapes but no values until they are assigned."""
    with torch.device("meta"), _SkipInit():
        return Transformer(config)


class _SkipInit(TorchFunctionMode):
    """Skips torch.nn.init: on the meta device random initialization has no effect but imports torch's compiler, which
    takes seconds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
