"""Which keys each query may attend to, and what is added to their scores: the definition that all kernels implement."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

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
