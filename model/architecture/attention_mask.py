"""Which keys a query may look at, and what is added to their scores: the one statement that every kernel follows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


class _Remembered(Generic[Value]):
    """A property that is computed once, as functools.cached_property, whose lock torch.compile cannot trace."""

    def __init__(self, compute: "Callable[[Visibility], Value]") -> None:
        self.compute, self.name = compute, compute.__name__

    def __get__(self, owner: "Visibility", _: type) -> Value:
        if torch.compiler.is_compiling():
            return self.compute(owner)
        known = owner.__dict__
        if self.name not in known:
            known[self.name] = self.compute(owner)
        value: Value = known[self.name]
        return value


@dataclass(frozen=True)
class Visibility:
    """What a layer's queries see of its keys."""

    query_positions: Tensor
    """[batch or 1, queries] int64: the place of each query in its own sequence or document."""
    key_positions: Tensor
    """[batch or 1, keys] int64; -1 where there is no key."""
    causal: bool
    window: int | None = None
    """Distances below it are seen: the `window` last keys, the query's own included; on both sides if not causal."""
    global_tokens: int = 0
    """Positions below it are seen from everywhere, and see everything that causality lets them."""
    query_documents: Tensor | None = None
    """[batch, queries]: a query sees keys of its own document only."""
    key_documents: Tensor | None = None
    """[batch, keys]."""
    key_mask: Tensor | None = None
    """[batch, keys] bool, False for padding."""
    bias: Tensor | None = None
    """[batch or 1, heads, queries, keys] float, added to the scaled scores."""
    slopes: Tensor | None = None
    """[heads] float32: ALiBi adds -slope x distance (arXiv 2108.12409)."""
    plain: bool = False
    """Stated by the maker: positions are 0, 1, 2, .. on both sides and nothing but `causal` restricts or changes the
    scores, so that a kernel need not look at the tensors.
    """

    @_Remembered
    def distances(self) -> Tensor:
        """[batch or 1, queries, keys] int64: query's position less key's."""
        return self.query_positions[:, :, None] - self.key_positions[:, None, :]

    @_Remembered
    def allowed(self) -> Tensor:
        """[batch or 1, 1, queries, keys] bool, True where a query may look."""
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

    @_Remembered
    def additive(self) -> Tensor | None:
        """[batch or 1, heads, queries, keys] float: bias and ALiBi together; None where nothing is added."""
        if self.slopes is None:
            return self.bias
        linear = -self.slopes[:, None, None] * self.distances[:, None].abs()
        return linear if self.bias is None else self.bias + linear


def within(
    length: int,
    *,
    causal: bool,
    window: int | None = None,
    global_tokens: int = 0,
    documents: Tensor | None = None,
    mask: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Visibility:
    """What tokens of whole sequences see of each other. `documents` [batch, length] int64, `mask` [batch, length]
    bool; a window that nothing lies outside of is none. A number that comes back after another is a new document.
    """
    if window is not None and window >= length:
        window, global_tokens = None, 0
    positions = torch.arange(length, device=device)[None] if documents is None else document_positions(documents)
    documents = None if documents is None else _begins(documents).cumsum(dim=1)
    return Visibility(
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


def between(queries: int, keys: int, mask: Tensor | None, device: torch.device | str = "cpu") -> Visibility:
    """What `queries` tokens see of another sequence of `keys` tokens: all of it, but for padding."""
    places = torch.arange(max(queries, keys), device=device)[None]
    return Visibility(places[:, :queries], places[:, :keys], causal=False, key_mask=mask, plain=mask is None)


def document_positions(documents: Tensor) -> Tensor:
    """The place of each token in its own document, [batch, seq] int64: 0, 1, 2, .. from each change of number on."""
    count = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    return count - torch.where(_begins(documents), count, 0).cummax(dim=1).values


def _begins(documents: Tensor) -> Tensor:
    """[batch, seq] bool: the first token of each document."""
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return begins
