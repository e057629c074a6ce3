"""Per-layer storage of a cache: keys and values of every position, of a ring buffer, or a recurrent state.

All layers of a kind write new tokens to the same places and read the same keys: `plan_full` or `plan_window` computes
this `WritePlan` once per step from positions alone, and the stores execute it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.state_space import SequenceState
from sluice.model.architecture.state_space_config import StateSpaceConfig

_LEVELS = 127  # int8 codes on either side of zero


@dataclass(frozen=True)
class StepRows:
    """New tokens of a step: row i continues slot `slots[i]` from position `starts[i]` on."""

    slots: Tensor
    """[batch] int64."""
    index: slice | Tensor
    """The same slots; a slice if they are consecutive, so that stores are read in place."""
    starts: Tensor
    """[batch] int64: tokens that each slot already holds."""
    counts: Tensor
    """[batch] int64: real tokens of each row; the rest is padding on the right."""
    positions: Tensor
    """[batch, seq] int64: position of each new token in its own sequence."""
    start: int | None
    """Start of every row; None if rows differ."""
    longest: int
    """Largest start plus seq."""

    @property
    def seq(self) -> int:
        return self.positions.shape[1]

    @property
    def distinct(self) -> Tensor:
        """[batch or 1, seq] int64: the positions; a single row if all rows have the same."""
        return self.positions if self.start is None else self.positions[:1]


@dataclass(frozen=True)
class WritePlan:
    """Places that a layer writes the new tokens of a step to, and keys that its queries attend to."""

    mask: AttentionMask
    """Mask of the new tokens over the keys of `reads`."""
    reads: Literal["new", "stored", "both"]
    """new: the new tokens only; stored: the store, after writing; both: the store before writing, then the new tokens.
    """
    used: int
    """Number of stored places that are read."""
    run: slice | None
    """Places of the new tokens if they are consecutive, equal in every row, and all tokens are stored; else None."""
    kept: tuple[Tensor, Tensor] | None = None
    """Row and column of each of the n new tokens that are stored; None: all. Used, like `places`, if `run` is None."""
    slots: Tensor | None = None
    """[n] or [batch, 1] int64: slot of each stored token."""
    places: Tensor | None = None
    """[n] or [batch, seq] int64: its place in the slot."""


def plan_full(rows: StepRows) -> WritePlan:
    """Plan of a layer that keeps every token at the place of its position."""
    device, longest = rows.positions.device, rows.longest
    run = slice(rows.start, longest) if rows.start is not None and isinstance(rows.index, slice) else None
    if rows.start == 0:
        # Padding is behind every real token, where causality masks it.
        mask = AttentionMask.self_attention(rows.seq, causal=True, device=device)
        return WritePlan(mask, "new", 0, run, None, rows.slots[:, None], rows.positions)
    # One query at the same position in every row attends to everything stored, so no kernel needs a mask.
    last = rows.start is not None and rows.seq == 1
    keys = torch.arange(longest, device=device)[None]
    mask = AttentionMask(rows.distinct, keys, causal=not last, plain=last)
    return WritePlan(mask, "stored", longest, run, None, rows.slots[:, None], rows.positions)


@dataclass(frozen=True)
class RingBuffer:
    """Places of a layer with a sliding window: the first `pinned` positions stay, the others share `turning` places.

    A single token overwrites the one that just left its window. Several at once may overwrite keys that the first of
    them still attend to, so they read the ring before writing, followed by themselves.
    """

    window: int
    pinned: int
    turning: int

    @classmethod
    def create(cls, window: int, global_tokens: int, max_length: int) -> "RingBuffer":
        """Ring buffer for sequences of up to `max_length` tokens."""
        pinned = min(global_tokens, max_length)
        return cls(window, pinned, min(window, max_length - pinned))

    @property
    def places(self) -> int:
        return self.pinned + self.turning

    def place(self, positions: Tensor) -> Tensor:
        """Place of each position, int64 of any shape."""
        turned = self.pinned + (positions - self.pinned) % max(self.turning, 1)
        return torch.where(positions < self.pinned, positions, turned)

    def held(self, lengths: Tensor) -> Tensor:
        """[batch or 1] tokens stored -> [batch or 1, places] position at each place, -1 if empty."""
        last = lengths[:, None] - 1
        place = torch.arange(self.places, device=lengths.device)
        newest = last - (last - place) % max(self.turning, 1)
        held = torch.where(place < self.pinned, place, newest.masked_fill(newest < self.pinned, -1))
        return held.masked_fill(held > last, -1)


def plan_window(rows: StepRows, ring: RingBuffer) -> WritePlan:
    """Plan of a layer that keeps the last `ring.window` tokens and the pinned ones."""
    device, positions = rows.positions.device, rows.distinct
    starts = rows.starts.to(device) if rows.start is None else torch.tensor([rows.start], device=device)
    used = min(rows.longest, ring.places)
    if rows.seq == 1:
        same = rows.start is not None
        run = None
        if same and isinstance(rows.index, slice):
            place = int(ring.place(rows.starts[:1]))
            run = slice(place, place + 1)
        # The places that hold a key are exactly the window.
        mask = AttentionMask(positions, ring.held(starts + 1)[:, :used], causal=not same, plain=same)
        return WritePlan(mask, "stored", used, run, None, rows.slots[:, None], ring.place(rows.positions))
    if rows.start == 0:
        used = 0
        mask = AttentionMask.self_attention(
            rows.seq, causal=True, window=ring.window, global_tokens=ring.pinned, device=device
        )
    else:
        used = min(int(rows.starts.max()), ring.places)
        keys = torch.cat((ring.held(starts)[:, :used].expand(len(positions), -1), positions), dim=1)
        mask = AttentionMask(positions, keys, causal=True, window=ring.window, global_tokens=ring.pinned)
    # Only the real tokens that no later token of the step overwrites are written: no place is written twice.
    counts, ends = rows.counts.to(device)[:, None], (rows.starts + rows.counts).to(device)[:, None]
    real = torch.arange(rows.seq, device=device) < counts
    stays = (rows.positions < ring.pinned) | (rows.positions >= ends - ring.turning)
    row, column = (real & stays).nonzero(as_tuple=True)
    places = ring.place(rows.positions[row, column])
    return WritePlan(mask, "both" if used else "new", used, None, (row, column), rows.slots[row], places)


class KVBuffer:
    """Keys or values [slots, kv_heads, places, size], contiguous per head, as attention reads them."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device | str) -> None:
        self.parts: tuple[Tensor, ...] = (torch.zeros(shape, dtype=dtype, device=device),)

    def write(self, index: slice, run: slice, new: Tensor) -> None:
        """Write [batch, run, kv_heads, size] to places that are the same in every slot of `index`."""
        for part, encoded in zip(self.parts, self.encode(new), strict=True):
            # narrow and copy_: assigning to slices takes twice as long, which shows in a step of one token.
            part[index].narrow(2, run.start, run.stop - run.start).copy_(encoded.transpose(1, 2))

    def scatter(self, slots: Tensor, places: Tensor, new: Tensor) -> None:
        """Write each [kv_heads, size] of new [..., kv_heads, size] to its slot and place, both [...] int64."""
        for part, encoded in zip(self.parts, self.encode(new), strict=True):
            # Two index tensors around a slice put the indexed dimensions first.
            part[slots, :, places] = encoded

    def read(self, index: slice | Tensor, used: int, dtype: torch.dtype) -> Tensor:
        """First `used` places, [batch, used, kv_heads, size]; a view if no conversion is needed."""
        # Narrowed before it is indexed: slots that are no slice are copied, and the rest of a slot holds nothing.
        return self.decode([part.narrow(2, 0, used)[index] for part in self.parts], dtype).transpose(1, 2)

    def round_trip(self, new: Tensor) -> Tensor:
        """[..., size]: what `read` returns once `new` is written, so that results do not depend on chunk lengths."""
        return self.decode(self.encode(new), new.dtype)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """[..., size] -> stored form."""
        return (x if x.dtype == self.parts[0].dtype else x.to(self.parts[0].dtype),)

    def decode(self, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """Inverse of `encode`."""
        return parts[0] if parts[0].dtype == dtype else parts[0].to(dtype)


class Int8KVBuffer(KVBuffer):
    """Buffer with 8 bits per entry: integers of -127 to 127, and a float32 scale per vector.

    A finite entry has an error of at most half the scale, which is the vector's largest magnitude / 127. A vector with
    a non-finite entry reads as all NaN.
    """

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device | str) -> None:
        codes = torch.zeros(shape, dtype=torch.int8, device=device)
        self.parts = (codes, torch.zeros((*shape[:-1], 1), dtype=torch.float32, device=device))

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x.float()
        scale = x.abs().amax(dim=-1, keepdim=True) / _LEVELS
        scale = torch.where(scale.isfinite(), scale, torch.nan)
        codes = (x / scale.clamp(min=torch.finfo(torch.float32).tiny)).round()
        return codes.nan_to_num(0.0).to(torch.int8), scale

    def decode(self, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        codes, scale = parts
        return (codes * scale).to(dtype)


class AttentionStore:
    """Keys and values of one layer."""

    def __init__(
        self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device | str, quantized: bool
    ) -> None:
        """`shape`: [slots, kv_heads, places, head]."""
        self.keys, self.values = (
            Int8KVBuffer(shape, device) if quantized else KVBuffer(shape, dtype, device) for _ in range(2)
        )
        self.read_as = dtype

    @property
    def tensors(self) -> Iterator[Tensor]:
        yield from (*self.keys.parts, *self.values.parts)

    def held(self, slot: int, length: int) -> Iterator[Tensor]:
        """Views of what a slot of `length` tokens holds."""
        yield from (part[slot].narrow(1, 0, min(length, part.shape[2])) for part in self.tensors)

    def take(self, other: "AttentionStore | StateStore", slots: Tensor, length: int) -> None:
        """Copy the first `length` tokens of `slots` [n] of another store of this kind into slots 0 to n - 1.

        A ring buffer with space for longer sequences has the tokens of shorter ones at the same places.
        """
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            places = min(length, theirs.shape[2])
            mine.narrow(2, 0, places).copy_(theirs.narrow(2, 0, places)[slots])

    def extend(self, rows: StepRows, plan: WritePlan, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new [batch, seq, kv_heads, head]; return the keys and values that `plan.mask` covers."""
        return self._extend(self.keys, rows, plan, keys), self._extend(self.values, rows, plan, values)

    @staticmethod
    def _extend(buffer: KVBuffer, rows: StepRows, plan: WritePlan, new: Tensor) -> Tensor:
        if plan.reads == "stored":
            _store(buffer, rows, plan, new)
            return buffer.read(rows.index, plan.used, new.dtype)
        read = buffer.round_trip(new)
        if plan.reads == "both":
            read = torch.cat((buffer.read(rows.index, plan.used, new.dtype), read), dim=1)
        _store(buffer, rows, plan, new)
        return read

    def fill(self, rows: StepRows, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store [batch, n, kv_heads, head] from the first place on; return them as `read` will."""
        self.read_as = keys.dtype
        for buffer, new in ((self.keys, keys.detach()), (self.values, values.detach())):
            if isinstance(rows.index, slice):
                buffer.write(rows.index, slice(0, new.shape[1]), new)
            else:
                buffer.scatter(rows.slots[:, None], torch.arange(new.shape[1], device=new.device)[None], new)
        return self.keys.round_trip(keys), self.values.round_trip(values)

    def read(self, rows: StepRows, used: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `used` places, [batch, used, kv_heads, head]."""
        return self.keys.read(rows.index, used, self.read_as), self.values.read(rows.index, used, self.read_as)


def _store(buffer: KVBuffer, rows: StepRows, plan: WritePlan, new: Tensor) -> None:
    new = new.detach()
    if plan.run is not None and isinstance(rows.index, slice):
        buffer.write(rows.index, plan.run, new)
    else:
        assert plan.slots is not None and plan.places is not None
        buffer.scatter(plan.slots, plan.places, new if plan.kept is None else new[plan.kept])


class StateStore:
    """State of one state space layer; its size does not depend on the sequence length."""

    def __init__(
        self, shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype, device: torch.device | str
    ) -> None:
        """`shapes`: see `state_shapes`."""
        self.conv = torch.zeros(shapes[0], dtype=dtype, device=device)
        self.state = torch.zeros(shapes[1], dtype=torch.float32, device=device)

    @property
    def tensors(self) -> Iterator[Tensor]:
        yield from (self.conv, self.state)

    def held(self, slot: int, length: int) -> Iterator[Tensor]:
        """Views of what a slot holds, whatever its length."""
        yield from (tensor[slot] for tensor in self.tensors)

    def take(self, other: "AttentionStore | StateStore", slots: Tensor, length: int) -> None:
        """Copy the states of `slots` [n] of another store of this kind into slots 0 to n - 1, whatever their length."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs[slots])

    def read(self, index: slice | Tensor) -> SequenceState:
        return SequenceState(self.conv[index], self.state[index])

    def write(self, index: slice | Tensor, new: SequenceState) -> None:
        self.conv[index] = new.conv.detach()
        self.state[index] = new.state.detach()


def state_shapes(config: StateSpaceConfig, hidden_size: int, slots: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of convolution inputs [slots, channels, conv_width - 1] and states [slots, heads, head, state_size]."""
    inner = config.expand * hidden_size
    conv = slots, inner + 2 * config.groups * config.state_size, config.conv_width - 1
    return conv, (slots, inner // config.head_size, config.head_size, config.state_size)
