"""One attention: queries, keys and values, the keys that each query may attend to, and what is added to their scores.

This is the definition that all kernels implement.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sluice.model.architecture.config import TransformerConfig

Value = TypeVar("Value")


class _CachedProperty(Generic[Value]):
    """Like functools.cached_property, whose lock torch.compile cannot trace."""

    def __init__(self, compute: "Callable[[AttentionMask], Value]") -> None:
        self.compute, self.name = compute, compute.__name__

    def __get__(self, owner: "AttentionMask", _: type) -> Value:
        if torch.compiler.is_compiling():
            return self.compute(owner)
        cached = owner.__dict__
        if self.name not in cached:
            cached[self.name] = self.compute(owner)
        value: Value = cached[self.name]
        return value


@dataclass(frozen=True)
class AttentionMask:
    """The keys that a layer's queries attend to, described by positions, documents and padding."""

    query_positions: Tensor
    """[batch or 1, queries] int64: position of each query in its own sequence or document."""
    key_positions: Tensor
    """[batch or 1, keys] int64; -1 where there is no key."""
    causal: bool
    window: int | None = None
    """Keys at a distance below it are visible: the last `window` keys, the query's own included; both sides if not
    causal.
    """
    global_tokens: int = 0
    """Positions below it are visible to every query and, causality aside, attend to every key."""
    query_documents: Tensor | None = None
    """[batch, queries]: a query attends to keys of its own document only."""
    key_documents: Tensor | None = None
    """[batch, keys]."""
    key_mask: Tensor | None = None
    """[batch, keys] bool, False for padding."""
    bias: Tensor | None = None
    """[batch or 1, heads, queries, keys] float, added to the scaled scores."""
    slopes: Tensor | None = None
    """[heads] float32: ALiBi adds -slope x distance (arXiv 2108.12409)."""
    plain: bool = False
    """Set by the creator: positions are 0, 1, 2, .. on both sides and only `causal` restricts or changes the scores, so
    that a kernel need not read the tensors.
    """

    @staticmethod
    def self_attention(
        length: int,
        *,
        causal: bool,
        window: int | None = None,
        global_tokens: int = 0,
        documents: Tensor | None = None,
        mask: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> "AttentionMask":
        """Tokens of whole sequences attend to each other. `documents` [batch, length] int64, `mask` [batch, length]
        bool; a window that covers the whole length is dropped. A document number that returns after another starts a
        new document.
        """
        if window is not None and window >= length:
            window, global_tokens = None, 0
        positions = torch.arange(length, device=device)[None] if documents is None else document_positions(documents)
        documents = None if documents is None else _document_starts(documents).cumsum(dim=1)
        return AttentionMask(
            positions,
            positions,
            causal,
            window,
            global_tokens,
            query_documents=documents,
            key_documents=documents,
            key_mask=mask,
            plain=window is None and documents is None and mask is None,
        )

    @staticmethod
    def cross_attention(
        queries: int, keys: int, mask: Tensor | None, device: torch.device | str = "cpu"
    ) -> "AttentionMask":
        """`queries` tokens attend to all `keys` tokens of another sequence, except padding by `mask` [batch, keys]."""
        positions = torch.arange(max(queries, keys), device=device)[None]
        return AttentionMask(
            positions[:, :queries], positions[:, :keys], causal=False, key_mask=mask, plain=mask is None
        )

    @_CachedProperty
    def distances(self) -> Tensor:
        """[batch or 1, queries, keys] int64: the query's position minus the key's."""
        return self.query_positions[:, :, None] - self.key_positions[:, None, :]

    @_CachedProperty
    def allowed(self) -> Tensor:
        """[batch or 1, 1, queries, keys] bool, True where a query may attend."""
        keys, distances = self.key_positions[:, None, :], self.distances
        allowed = (keys >= 0).expand_as(distances)
        if self.causal:
            allowed = allowed & (distances >= 0)
        if self.window is not None:
            near = distances.abs() < self.window
            if self.global_tokens:
                near |= (keys < self.global_tokens) | (self.query_positions[:, :, None] < self.global_tokens)
            allowed = allowed & near
        if self.query_documents is not None and self.key_documents is not None:
            allowed = allowed & (self.query_documents[:, :, None] == self.key_documents[:, None, :])
        if self.key_mask is not None:
            allowed = allowed & self.key_mask[:, None, :]
        return allowed[:, None]

    @_CachedProperty
    def additive(self) -> Tensor | None:
        """[batch or 1, heads, queries, keys] float: sum of bias and ALiBi; None where nothing is added."""
        if self.slopes is None:
            return self.bias
        linear = -self.slopes[:, None, None] * self.distances[:, None].abs()
        return linear if self.bias is None else self.bias + linear

    def cached(self, key: Hashable, compute: "Callable[[], Value]") -> Value:
        """Return `compute()`, stored under `key` for all layers that share the mask. A compiler merges equal
        computations by itself.
        """
        if torch.compiler.is_compiling():
            return compute()
        stored: dict[Hashable, Any] = self.__dict__.setdefault("_kernels", {})
        if key not in stored:
            stored[key] = compute()
        value: Value = stored[key]
        return value

    def fully_masked(self) -> Tensor | None:
        """[batch or 1, queries] bool, True for queries without any key; None where there is known to be none."""

        def compute() -> Tensor | None:
            has_key = self.allowed[:, 0].any(dim=-1)
            # On other devices reading the value would stall the queue, and in a compiled graph break it.
            if has_key.device.type == "cpu" and not torch.compiler.is_compiling() and bool(has_key.all()):
                return None
            return ~has_key

        return None if self.plain else self.cached("fully masked", compute)

    def allowed_or_first(self) -> Tensor:
        """[batch or 1, 1, queries, keys] bool: `allowed`, and the first key for fully masked queries.

        So no softmax runs over nothing; `zero_fully_masked` must clear their results.
        """

        def compute() -> Tensor:
            without = self.fully_masked()
            if without is None:
                return self.allowed
            first = torch.arange(self.allowed.shape[-1], device=without.device) == 0
            return self.allowed | (without[:, None, :, None] & first)

        return self.cached("allowed", compute)

    def additive_as(self, dtype: torch.dtype) -> Tensor | None:
        """`additive` in a type, and -inf where masked; None where `allowed_or_first` suffices."""
        bias = self.additive
        if bias is None:
            return None

        def compute() -> Tensor:
            return bias.to(dtype).masked_fill(~self.allowed_or_first(), -torch.inf)

        # Part of the autograd graph, so not shared: checkpointing repeats a layer and must repeat its operations.
        return compute() if bias.requires_grad else self.cached(f"additive {dtype}", compute)

    def zero_fully_masked(self, mixed: Tensor) -> Tensor:
        """[batch, queries, heads, size] with zeros for fully masked queries."""
        without = self.fully_masked()
        return mixed if without is None else mixed.masked_fill(without[:, :, None, None], 0.0)


@dataclass(frozen=True)
class AttentionCall:
    """softmax(capped(queries keys^T x scale) + mask) values; a query without any key to attend to gives zeros."""

    queries: Tensor
    """[batch, queries, heads, head_size]; so is a kernel's result."""
    keys: Tensor
    """[batch, keys, kv_heads, head_size]: heads / kv_heads neighbouring query heads share a key-value head."""
    values: Tensor
    """[batch, keys, kv_heads, head_size]."""
    mask: AttentionMask
    scale: float
    soft_cap: float | None = None
    """Scaled scores s become cap * tanh(s / cap), before the mask adds to them."""
    dropout: float = 0.0
    """Dropout of the probabilities."""


def check_shapes(call: AttentionCall) -> None:
    """Raise ValueError naming the shapes of queries, keys, values and mask that do not fit together."""
    queries, keys, values, mask = call.queries, call.keys, call.values, call.mask
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
    if mask.plain:
        restrictions = mask.window, mask.query_documents, mask.key_mask, mask.bias, mask.slopes
        assert all(part is None for part in restrictions), "not plain"
        if mask.causal and length != keys.shape[1]:
            raise ValueError(f"plain causal attention needs as many queries as keys, not {length} and {keys.shape[1]}")
        return
    mask.cached(f"checked {sizes}", lambda: _check_mask(mask, *sizes))


def _check_mask(mask: AttentionMask, batch: int, queries: int, keys: int, heads: int) -> None:
    if (mask.query_documents is None) != (mask.key_documents is None):
        raise ValueError("documents must be given for queries and keys alike, or for neither")
    rows = sorted({1, batch})
    expected: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "query_positions": (mask.query_positions, [(row, queries) for row in rows]),
        "key_positions": (mask.key_positions, [(row, keys) for row in rows]),
        "query_documents": (mask.query_documents, [(row, queries) for row in rows]),
        "key_documents": (mask.key_documents, [(row, keys) for row in rows]),
        "key_mask": (mask.key_mask, [(row, keys) for row in rows]),
        "bias": (mask.bias, [(row, heads, queries, keys) for row in rows]),
        "slopes": (mask.slopes, [(heads,)]),
    }
    for name, (tensor, shapes) in expected.items():
        if tensor is not None and tuple(tensor.shape) not in shapes:
            allowed = " or ".join(map(str, map(list, reversed(shapes))))
            raise ValueError(f"{name} has shape {_shape(tensor)}, and must have {allowed}")
    if mask.key_mask is not None and mask.key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be bool (True: a real key), not {mask.key_mask.dtype}")


def _shape(x: Tensor) -> list[int]:
    return list(x.shape)


def document_positions(documents: Tensor) -> Tensor:
    """Position of each token in its own document, [batch, seq] int64: counts from 0 at each change of number."""
    count = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    return count - torch.where(_document_starts(documents), count, 0).cummax(dim=1).values


def sequence_lengths(positions: Tensor, documents: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Length of the sequence or document that each position belongs to, [..., 1 or seq] int64.

    `positions` is [seq] or [batch, seq]; `mask` [batch, seq] is False for padding.
    """
    if documents is not None:
        # The tokens of the document before this one, this one, and those after it.
        return positions + 1 + document_positions(documents.flip(1)).flip(1)
    last = positions if mask is None else torch.where(mask, positions, 0)
    return last.amax(dim=-1, keepdim=True) + 1


def _document_starts(documents: Tensor) -> Tensor:
    """[batch, seq] bool: the first token of each document."""
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return starts


def alibi_slopes(heads: int, device: torch.device | str = "cpu") -> Tensor:
    """[heads] float32: a geometric series. If heads is no power of two, every second slope of the next power is added
    (Press et al., arXiv 2108.12409).
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (head + 1) / power) for head in range(power)]
    between = [2.0 ** (-4.0 * (head + 1) / power) for head in range(0, 2 * power, 2)]
    return torch.tensor([*slopes, *between][:heads], device=device)


class RelativeBias(nn.Module):
    """Learned bias per head and bucket of distances (T5, arXiv 1910.10683); one table for all layers of a stack."""

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.buckets, self.distance = causal, config.relative_buckets, config.relative_distance
        self.weight = nn.Parameter(torch.empty(config.relative_buckets, config.heads))

    def forward(self, distances: Tensor) -> Tensor:
        """The query's position minus the key's, [batch, queries, keys] -> [batch, heads, queries, keys]."""
        buckets = relative_buckets(distances, self.buckets, self.distance, causal=self.causal)
        return self.weight[buckets].permute(0, 3, 1, 2)


def relative_buckets(distances: Tensor, buckets: int, furthest: int, *, causal: bool) -> Tensor:
    """Bucket number of each distance: one per distance for near keys, then logarithmically wider up to `furthest`."""
    first = torch.zeros_like(distances)
    if causal:
        distances = distances.clamp(min=0)
    else:
        buckets //= 2
        first += (distances < 0) * buckets
        distances = distances.abs()
    exact = buckets // 2
    wide = (distances.clamp(min=1).float() / exact).log() / math.log(furthest / exact) * (buckets - exact)
    far = (exact + wide.long()).clamp(max=buckets - 1)
    return first + torch.where(distances < exact, distances, far)
