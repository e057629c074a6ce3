"""Slot-based key-value cache: sequences of different lengths decode together in one batch.

A slot is one sequence's place. Every slot has its own length, so a finished sequence's slot goes to the next request
while the others go on (continuous batching, Orca, OSDI 2022).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.architecture.config import TransformerConfig


class KVCache:
    """Keys and values of `slots` sequences of up to `max_length` tokens.

    `keys[layer]` and `values[layer]` are [slots, kv_heads, max_length, head_size]; `lengths` is [slots] int64 on the
    CPU, the number of tokens each slot holds. `Transformer.forward(ids, cache=cache, slots=slots)` reads and extends
    it.
    """

    def __init__(
        self,
        config: TransformerConfig,
        slots: int,
        max_length: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        max_length = config.context if max_length is None else max_length
        if not 1 <= max_length <= config.context:
            raise ValueError(f"max_length {max_length} must be between 1 and the model's context {config.context}")
        shape = (slots, config.kv_heads, max_length, config.head_size)
        self.slots, self.max_length = slots, max_length
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.lengths = torch.zeros(slots, dtype=torch.int64)

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def reset(self, slots: Tensor | None = None) -> None:
        """Empties the given slots ([n] int64), or all of them."""
        chosen = slice(None) if slots is None else slots
        self.lengths[chosen] = 0
        # Wiped, not only forgotten: a NaN left by the last request would come through the mask, as 0 x NaN.
        for tensor in (*self.keys, *self.values):
            tensor[chosen] = 0

    def begin(self, batch: int, seq: int, slots: Tensor | None, counts: Tensor | None) -> "CacheStep":
        """Opens a step in which row i of [batch, seq] new tokens continues `slots[i]` (slot i without `slots`)."""
        if slots is None and batch != self.slots:
            raise ValueError(f"a batch of {batch} rows needs `slots` to say which of {self.slots} slots they continue")
        slots = torch.arange(batch) if slots is None else self._checked(slots.cpu(), batch)
        if counts is None:
            counts = torch.full((batch,), seq)
        elif counts.shape != (batch,) or int(counts.min()) < 0 or int(counts.max()) > seq:
            raise ValueError(f"counts {counts.tolist()} must hold, for each of {batch} rows, 0 to {seq} tokens")
        starts = self.lengths[slots]
        longest = int(starts.max()) + seq
        if longest > self.max_length:
            raise ValueError(f"sequence of {longest} tokens is longer than the cache's max_length {self.max_length}")
        device = self.keys[0].device
        positions = (starts[:, None] + torch.arange(seq)).to(device)
        # Prefill of empty slots is plain causal attention over the new tokens, for which SDPA needs no mask.
        fresh = not bool(starts.any())
        mask = None if fresh else torch.arange(longest, device=device) <= positions[:, None, :, None]
        whole = torch.equal(slots, torch.arange(self.slots))
        return CacheStep(self, slots.to(device), counts.cpu(), positions, mask, longest, whole)

    def _checked(self, slots: Tensor, batch: int) -> Tensor:
        names = slots.tolist()
        if slots.shape != (batch,):
            raise ValueError(f"slots {names} must name one slot for each of {batch} rows")
        if wrong := [slot for slot in names if not 0 <= slot < self.slots]:
            raise ValueError(f"slot {wrong[0]} is not one of 0 to {self.slots - 1}")
        if len(set(names)) < batch:
            raise ValueError(f"slots {names} name one slot twice")
        return slots


@dataclass(frozen=True)
class CacheStep:
    """One forward pass's view of the cache."""

    cache: KVCache
    slots: Tensor
    """[batch] int64: the slot each row continues."""
    counts: Tensor
    """[batch] int64: how many of a row's new tokens are real, the rest being padding on the right."""
    positions: Tensor
    """[batch, seq] int64: the place of each new token in its own sequence."""
    mask: Tensor | None
    """[batch, 1, seq, longest] bool, True where a query may look; None where plain causal attention is meant."""
    longest: int
    whole: bool
    """The rows are all slots in their order, so the cache is read in place."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new [batch, kv_heads, seq, head_size] and returns all that the step's queries may look at."""
        stored = self.cache.keys[layer], self.cache.values[layer]
        for place, new in zip(stored, (keys, values), strict=True):
            # Two index tensors around a slice put the indexed dimensions first: [batch, seq, kv_heads, head_size].
            place[self.slots[:, None], :, self.positions] = new.transpose(1, 2).to(place.dtype)
        if self.mask is None:
            return keys, values
        if self.whole:
            return stored[0][:, :, : self.longest], stored[1][:, :, : self.longest]
        return stored[0][self.slots, :, : self.longest], stored[1][self.slots, :, : self.longest]

    def commit(self) -> None:
        """Makes the new tokens part of their sequences, once every layer has stored them."""
        self.cache.lengths[self.slots.cpu()] += self.counts
