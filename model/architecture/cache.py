"""Slot-based cache: sequences of different lengths decode together in one batch.

A slot holds one sequence. Every slot has its own length, so a finished sequence's slot is given to the next request
while the others continue (continuous batching, Orca, OSDI 2022). What a slot stores depends on the kind of layer: all
keys and values, those of a sliding window, or a recurrent state.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.cache_stores import (
    AttentionStore,
    RingBuffer,
    StateStore,
    StepRows,
    WritePlan,
    plan_full,
    plan_window,
    state_shapes,
)
from sluice.model.architecture.config import LayerKind, TransformerConfig
from sluice.model.architecture.state_space import SequenceState

AttentionKind = Literal["attention", "window"]


class Cache:
    """Keys, values and recurrent states of `slots` sequences of up to `max_length` tokens.

    `lengths` is [slots] int64 on the CPU, the number of tokens each slot holds. `Transformer.forward(ids, cache=cache,
    slots=slots)` reads and extends it. A step that fails midway may leave its slots half extended: reset them.
    """

    def __init__(
        self,
        config: TransformerConfig,
        slots: int,
        max_length: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        quantized: bool = False,
        source_length: int | None = None,
    ) -> None:
        """`max_length` and, for an encoder-decoder, `source_length` limit a slot's tokens (default: the model's
        context). `quantized` stores keys and values in 8 bits. Raises ValueError for settings that the model does not
        support.
        """
        if slots < 1:
            raise ValueError(f"slots {slots} must be at least 1")
        if not dtype.is_floating_point:
            raise ValueError(f"dtype {_name(dtype)} must be a floating-point type, as the model's weights are")
        if config.kind == "encoder":
            raise ValueError("a model of kind encoder reads whole sequences: it has no cache")
        if quantized and not config.has_attention:
            raise ValueError("quantized has no effect: no layer keeps keys and values")
        has_source = config.kind == "encoder-decoder"
        if source_length is not None and not has_source:
            raise ValueError(f"source_length {source_length} has no effect with kind {config.kind}")
        for name, value in {"max_length": max_length, "source_length": source_length}.items():
            if value is not None and not 1 <= value <= config.context:
                raise ValueError(f"{name} {value} must be between 1 and the model's context {config.context}")
        self.config, self.kinds, self.slots = config, config.layer_kinds, slots
        self._dtype, self._quantized = dtype, quantized
        self.max_length = config.context if max_length is None else max_length
        self.lengths = torch.zeros(slots, dtype=torch.int64)
        self._written = torch.zeros(slots, dtype=torch.int64)
        """Positions of each slot that may have been written; padding and steps that failed midway count too."""
        self.ring = RingBuffer.create(config.window or 1, config.global_tokens, self.max_length)
        self.stores: list[AttentionStore | StateStore] = []
        for kind in self.kinds:
            if kind == "state_space":
                assert config.state_space is not None
                shapes = state_shapes(config.state_space, config.hidden_size, slots)
                self.stores.append(StateStore(shapes, dtype, device))
            else:
                places = self.max_length if kind == "attention" else self.ring.places
                shape = (slots, config.kv_heads, places, config.head_width)
                self.stores.append(AttentionStore(shape, dtype, device, quantized))
        self.source_length = (source_length or config.context) if has_source else 0
        self.source_lengths = torch.zeros(slots, dtype=torch.int64)
        self.source_mask = torch.zeros(slots, self.source_length, dtype=torch.bool, device=device)
        shape = (slots, config.kv_heads, self.source_length, config.head_width)
        self.source_stores = [
            AttentionStore(shape, dtype, device, quantized) for _ in range(config.layers if has_source else 0)
        ]

    @property
    def tensors(self) -> Iterator[Tensor]:
        """All tensors on the device, each [slots, ..]."""
        for store in (*self.stores, *self.source_stores):
            yield from store.tensors
        yield self.source_mask

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def reset(self, slots: Tensor | None = None) -> None:
        """Empty the given slots ([n] int64), or all of them. Raises ValueError for a slot that does not exist."""
        if slots is not None and slots.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"slots of type {_name(slots.dtype)} must be int32 or int64")
        names = list(range(self.slots)) if slots is None else slots.tolist()
        self._check_slots(names)
        for slot in names:
            # Zeroed, because a NaN left by the last request would pass through the mask as 0 x NaN.
            for view in self._held(slot):
                view.zero_()
        for counts in (self.lengths, self.source_lengths, self._written):
            counts[names] = 0

    def move(self, source: int, target: int) -> None:
        """Move the sequence of slot `source` into slot `target`, whose own is dropped; `source` is empty afterwards."""
        self.reset(torch.tensor([target]))
        for counts in (self.lengths, self.source_lengths, self._written):
            counts[target] = counts[source]
        for old, new in zip(self._held(source), self._held(target), strict=True):
            new.copy_(old)
        self.reset(torch.tensor([source]))

    def branch(self, slots: Tensor, max_length: int | None = None) -> "Cache":
        """Return a cache whose slot i holds a copy of the sequence in `slots[i]` ([n] int64, repeats allowed), so that
        several sequences can go on from one. `max_length` is at least this cache's, which is the default.
        """
        if max_length is not None and max_length < self.max_length:
            raise ValueError(f"max_length {max_length} must be at least {self.max_length}, that of the sequences")
        names = slots.tolist()
        self._check_slots(names)
        made = Cache(
            self.config,
            len(names),
            max_length or self.max_length,
            self._dtype,
            self.source_mask.device,
            quantized=self._quantized,
            source_length=self.source_length or None,
        )
        index, longest = slots.to(self.source_mask.device), int(self._written[names].max())
        for store, copy in zip(self.stores, made.stores, strict=True):
            copy.take(store, index, longest)
        for store, copy in zip(self.source_stores, made.source_stores, strict=True):
            copy.take(store, index, self.source_length)
        made.source_mask.copy_(self.source_mask[index])
        for counts in ("lengths", "source_lengths", "_written"):
            getattr(made, counts).copy_(getattr(self, counts)[names])
        return made

    def _held(self, slot: int) -> Iterator[Tensor]:
        """Views of all that may differ from zero in a slot."""
        for store in self.stores:
            yield from store.held(slot, int(self._written[slot]))
        for store in self.source_stores:
            yield from store.held(slot, self.source_length)
        yield self.source_mask[slot]

    def begin(
        self,
        batch: int,
        seq: int,
        slots: Tensor | None = None,
        counts: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> "CacheStep":
        """Begin a step in which row i of [batch, seq] new tokens continues `slots[i]` (default: slot i).

        `counts` [batch] are the real tokens of each row (None: all). `source_mask` [batch, source] bool, False for
        padding, is given with the first tokens of an encoder-decoder's slots.
        """
        if slots is None and batch != self.slots:
            raise ValueError(f"a batch of {batch} rows needs `slots` to say which of {self.slots} slots they continue")
        slots = torch.arange(batch) if slots is None else slots.cpu()
        names = slots.tolist()
        if slots.shape != (batch,):
            raise ValueError(f"slots {names} must name one slot for each of {batch} rows")
        self._check_slots(names)
        if len(set(names)) < batch:
            raise ValueError(f"slots {names} name one slot twice")
        if counts is not None and (counts.shape != (batch,) or int(counts.min()) < 0 or int(counts.max()) > seq):
            raise ValueError(f"counts {counts.tolist()} must hold, for each of {batch} rows, 0 to {seq} tokens")
        counts = torch.full((batch,), seq) if counts is None else counts.cpu()
        starts = self.lengths[slots]
        longest = int(starts.max()) + seq
        if longest > self.max_length:
            raise ValueError(self._too_long(slots, starts, counts, seq))
        self._check_source(slots, starts, source_mask)
        self._written[slots] = torch.maximum(self._written[slots], starts + seq)
        device = self.source_mask.device
        index: slice | Tensor = slice(names[0], names[0] + len(names))
        if names != list(range(names[0], names[0] + len(names))):
            index = slots.to(device)
        same = longest - seq == int(starts.min())
        if same:
            positions = torch.arange(longest - seq, longest, device=device).expand(len(names), -1)
        else:
            positions = (starts[:, None] + torch.arange(seq)).to(device)
        start = longest - seq if same else None
        rows = StepRows(slots.to(device), index, starts, counts, positions, start, longest)
        return CacheStep(self, slots, rows, source_mask)

    def _check_slots(self, names: list[int]) -> None:
        if wrong := [slot for slot in names if not 0 <= slot < self.slots]:
            raise ValueError(f"slot {wrong[0]} is not one of 0 to {self.slots - 1}")

    def _too_long(self, slots: Tensor, starts: Tensor, counts: Tensor, seq: int) -> str:
        """Error message for a row of `seq` tokens that does not fit, perhaps because its padding takes space too."""
        limit = f"longer than the cache's max_length {self.max_length}"
        if (real := int((starts + counts).max())) > self.max_length:
            return f"sequence of {real} tokens is {limit}"
        row = int(starts.argmax())
        held = int(starts[row])
        return (
            f"slot {int(slots[row])} holds {held} tokens, and a row of {seq}, padding included, makes {held + seq}: "
            f"{limit}; feed rows of such different lengths apart"
        )

    def _check_source(self, slots: Tensor, starts: Tensor, source_mask: Tensor | None) -> None:
        if not self.source_stores:
            assert source_mask is None, f"a source for a model of kind {self.config.kind}"
            return
        if source_mask is None:
            if bare := slots[self.source_lengths[slots] == 0].tolist():
                raise ValueError(f"slot {bare[0]} has no source: give one with its first tokens")
        elif begun := slots[starts > 0].tolist():
            raise ValueError(f"slot {begun[0]} goes on with an earlier source: reset it before it gets another")
        elif (length := source_mask.shape[1]) > self.source_length:
            raise ValueError(f"source of {length} tokens is longer than the cache's source_length {self.source_length}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class CacheStep:
    """View of the cache in one forward pass."""

    cache: Cache
    slots: Tensor
    """[batch] int64, on the CPU: the slot that each row continues."""
    rows: StepRows
    new_source: Tensor | None = None
    """[batch, source] bool: mask of the source that is given in this step."""
    _plans: dict[str, WritePlan] = field(default_factory=dict)

    @property
    def positions(self) -> Tensor:
        """[batch, seq] int64: position of each new token in its own sequence."""
        return self.rows.positions

    @property
    def lengths(self) -> Tensor:
        """[batch, 1] int64: tokens of each sequence after the step."""
        rows = self.rows
        return (rows.starts + rows.counts).to(rows.positions.device).unsqueeze(1)

    @property
    def fresh(self) -> bool:
        """Return whether every slot was empty before."""
        return self.rows.start == 0

    @property
    def counts(self) -> Tensor | None:
        """[batch] int64: real tokens of each row, the rest being padding; None if all are real."""
        rows = self.rows
        return None if int(rows.counts.min()) == rows.seq else rows.counts.to(rows.positions.device)

    def mask(self, kind: LayerKind | Literal["source"]) -> AttentionMask:
        """Mask of the new tokens over the keys that `extend` returns in layers of this kind, or over the source."""
        if kind == "source":
            return self._source_attention_mask
        assert kind != "state_space", "a recurrent state has no keys"
        return self._plan(kind).mask

    def _plan(self, kind: AttentionKind) -> WritePlan:
        if kind not in self._plans:
            self._plans[kind] = plan_full(self.rows) if kind == "attention" else plan_window(self.rows, self.cache.ring)
        return self._plans[kind]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new [batch, seq, kv_heads, head]; return all keys and values that the step's queries may attend to,
        [batch, keys, kv_heads, head].
        """
        kind, store = self.cache.kinds[layer], self.cache.stores[layer]
        assert kind != "state_space" and isinstance(store, AttentionStore)
        return store.extend(self.rows, self._plan(kind), keys, values)

    def state(self, layer: int) -> SequenceState:
        """Recurrent state of the rows' sequences before the step."""
        store = self.cache.stores[layer]
        assert isinstance(store, StateStore)
        return store.read(self.rows.index)

    def store_state(self, layer: int, state: SequenceState) -> None:
        """Store the state after each row's real tokens."""
        store = self.cache.stores[layer]
        assert isinstance(store, StateStore)
        store.write(self.rows.index, state)

    def store_source(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store a source's [batch, source, kv_heads, head]; return them as later steps will read them."""
        assert self.new_source is not None
        return self.cache.source_stores[layer].fill(self.rows, keys, values)

    def source(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, source, kv_heads, head] of the source given in an earlier step."""
        assert self.new_source is None
        return self.cache.source_stores[layer].read(self.rows, self._source_length)

    @cached_property
    def _source_length(self) -> int:
        """Length of the longest source among the rows."""
        if self.new_source is not None:
            return self.new_source.shape[1]
        return int(self.cache.source_lengths[self.slots].max())

    @cached_property
    def _source_attention_mask(self) -> AttentionMask:
        mask = self.new_source
        if mask is None:
            mask = self.cache.source_mask[self.rows.index, : self._source_length]
        whole = bool(mask.all())
        return AttentionMask.cross_attention(self.rows.seq, mask.shape[1], None if whole else mask, mask.device)

    def commit(self) -> None:
        """Make the new tokens part of their sequences, after every layer has stored them."""
        self.cache.lengths[self.slots] += self.rows.counts
        if self.new_source is not None:
            length = self.new_source.shape[1]
            self.cache.source_lengths[self.slots] = length
            self.cache.source_mask[self.rows.slots] = False
            self.cache.source_mask[self.rows.slots, :length] = self.new_source
