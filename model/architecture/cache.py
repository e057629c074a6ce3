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
    CPU, the number of tokens each slot holds. `Transformer.forward(ids, cache=cache, slots=slots)` reads and extends it.
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

    def begin(self, batch: int, seq: int, slots: Tensor | None) -> "CacheStep":
        """Opens a step in which row i of [batch, seq] new tokens continues `slots[i]` (slot i without `slots`)."""
        if slots is None and batch != self.slots:
            raise ValueError(
                f"a batch of {batch} rows needs `slots` to say which of the {self.slots} slots they continue"
            )
        if slots is not None and slots.shape != (batch,):
            raise ValueError(f"slots of shape {tuple(slots.shape)} must name one slot for each of {batch} rows")
        starts = self.lengths if slots is None else self.lengths[slots]
        longest = int(starts.max()) + seq
        if longest > self.max_length:
            raise ValueError(f"sequence of {longest} tokens is longer than the cache's max_length {self.max_length}")
        device = self.keys[0].device
        positions = (starts[:, None] + torch.arange(seq)).to(device)
        # Prefill of empty slots is plain causal attention over the new tokens, for which SDPA needs no mask.
        fresh = not bool(starts.any())
        mask = None if fresh else torch.arange(longest, device=device) <= positions[:, None, :, None]
        return CacheStep(self, None if slots is None else slots.to(device), positions, mask, longest)

    def advance(self, slots: Tensor | None, counts: Tensor | int) -> None:
        """Records that each slot grew by `counts` tokens."""
        if slots is None:
            self.lengths += counts
        else:
            self.lengths[slots] += counts


@dataclass(frozen=True)
class CacheStep:
    """One forward pass's view of the cache."""

    cache: KVCache
    slots: Tensor | None
    positions: Tensor
    """[batch, seq] int64: the place of each new token in its own sequence."""
    mask: Tensor | None
    """[batch, 1, seq, longest] bool, True where a query may look; None where plain causal attention is meant."""
    longest: int

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new [batch, kv_heads, seq, head_size] and returns all that the step's queries may look at."""
        stored_keys, stored_values = self.cache.keys[layer], self.cache.values[layer]
        rows = torch.arange(keys.shape[0], device=keys.device) if self.slots is None else self.slots
        # Two index tensors split by a slice put the indexed dimensions first: [batch, seq, kv_heads, head_size].
        stored_keys[rows[:, None], :, self.positions] = keys.transpose(1, 2).to(stored_keys.dtype)
        stored_values[rows[:, None], :, self.positions] = values.transpose(1, 2).to(stored_values.dtype)
        if self.mask is None:
            return keys, values
        if self.slots is None:
            return stored_keys[:, :, : self.longest], stored_values[:, :, : self.longest]
        return stored_keys[self.slots, :, : self.longest], stored_values[self.slots, :, : self.longest]
