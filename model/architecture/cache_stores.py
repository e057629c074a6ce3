"""What a cache keeps of one layer: keys and values of every place, of a ring of places, or a recurrent state.

Where new tokens go and what the queries then look at is the same in all layers of a kind: a `Plan`, made once a step by
`plan_full` or `plan_window` from positions alone. The stores carry it out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import Visibility, within
from sluice.model.architecture.state_space import SequenceState
from sluice.model.architecture.state_space_config import StateSpaceConfig

_LEVELS = 127  # of an int8 code on either side of zero


@dataclass(frozen=True)
class Rows:
    """The new tokens of a step: row i continues slot `slots[i]` from position `starts[i]` on."""

    slots: Tensor
    """[batch] int64."""
    index: slice | Tensor
    """The same slots: a slice where they follow one another, so that stores are read in place."""
    starts: Tensor
    """[batch] int64: tokens that each slot holds already."""
    counts: Tensor
    """[batch] int64: real tokens of each row, the rest being padding on the right."""
    positions: Tensor
    """[batch, seq] int64: place of each new token in its own sequence."""
    start: int | None
    """That of every row; None where rows differ."""
    longest: int
    """Largest start, plus seq."""

    @property
    def seq(self) -> int:
        return self.positions.shape[1]

    @property
    def distinct(self) -> Tensor:
        """[batch or 1, seq] int64: the positions, once where all rows have the same."""
        return self.positions if self.start is None else self.positions[:1]


@dataclass(frozen=True)
class Plan:
    """Where a layer puts the new tokens of a step, and what its queries look at."""

    visibility: Visibility
    looks_at: Literal["new", "stored", "both"]
    """The new tokens alone; the stored ones, once the new are among them; or the stored ones before the new replace
    some, and the new behind them.
    """
    used: int
    """Stored places that are read."""
    run: slice | None
    """Places of the new tokens where they are the same in every row and follow one another, and none is left out."""
    kept: tuple[Tensor, Tensor] | None = None
    """Row and column of each of n new tokens that are stored; None: all. Used, as is `places`, without a `run`."""
    slots: Tensor | None = None
    """[n] or [batch, 1] int64: the slot of each."""
    places: Tensor | None = None
    """[n] or [batch, seq] int64: its place there."""


def plan_full(rows: Rows) -> Plan:
    """Of a layer that keeps every token, at the place of its position."""
    device, longest = rows.positions.device, rows.longest
    run = slice(rows.start, longest) if rows.start is not None and isinstance(rows.index, slice) else None
    if rows.start == 0:
        # Padding stands behind every real token, where causality hides it.
        visibility = within(rows.seq, causal=True, device=device)
        return Plan(visibility, "new", 0, run, None, rows.slots[:, None], rows.positions)
    # One query at the same position in every row sees all that is stored, so no kernel needs a mask.
    last = rows.start is not None and rows.seq == 1
    keys = torch.arange(longest, device=device)[None]
    visibility = Visibility(rows.distinct, keys, causal=not last, plain=last)
    return Plan(visibility, "stored", longest, run, None, rows.slots[:, None], rows.positions)


@dataclass(frozen=True)
class Ring:
    """Places of a layer with a sliding window: the first `pinned` positions stay, the others take `turning` in turn.

    One token overwrites the one that has just left its window. Several at once may overwrite what the first of them
    still see: those look at the ring before, and at themselves behind it.
    """

    window: int
    pinned: int
    turning: int

    @classmethod
    def of(cls, window: int, global_tokens: int, max_length: int) -> "Ring":
        """No longer than a sequence of `max_length` tokens can fill."""
        pinned = min(global_tokens, max_length)
        return cls(window, pinned, min(window, max_length - pinned))

    @property
    def places(self) -> int:
        return self.pinned + self.turning

    def place(self, positions: Tensor) -> Tensor:
        """Of each position, int64 of any shape."""
        turned = self.pinned + (positions - self.pinned) % max(self.turning, 1)
        return torch.where(positions < self.pinned, positions, turned)

    def held(self, lengths: Tensor) -> Tensor:
        """[batch or 1] tokens stored -> [batch or 1, places] the position at each place, -1 where there is none."""
        last = lengths[:, None] - 1
        place = torch.arange(self.places, device=lengths.device)
        newest = last - (last - place) % max(self.turning, 1)
        held = torch.where(place < self.pinned, place, newest.masked_fill(newest < self.pinned, -1))
        return held.masked_fill(held > last, -1)


def plan_window(rows: Rows, ring: Ring) -> Plan:
    """Of a layer that keeps the last `ring.window` tokens and the pinned ones."""
    device, positions = rows.positions.device, rows.distinct
    starts = rows.starts.to(device) if rows.start is None else torch.tensor([rows.start], device=device)
    used = min(rows.longest, ring.places)
    if rows.seq == 1:
        same = rows.start is not None
        run = None
        if same and isinstance(rows.index, slice):
            place = int(ring.place(rows.starts[:1]))
            run = slice(place, place + 1)
        # The places that hold a key are the window itself.
        visibility = Visibility(positions, ring.held(starts + 1)[:, :used], causal=not same, plain=same)
        return Plan(visibility, "stored", used, run, None, rows.slots[:, None], ring.place(rows.positions))
    if rows.start == 0:
        used = 0
        visibility = within(rows.seq, causal=True, window=ring.window, global_tokens=ring.pinned, device=device)
    else:
        used = min(int(rows.starts.max()), ring.places)
        keys = torch.cat((ring.held(starts)[:, :used].expand(len(positions), -1), positions), dim=1)
        visibility = Visibility(positions, keys, causal=True, window=ring.window, global_tokens=ring.pinned)
    kept = _kept(rows, ring)
    slots, places = rows.slots[kept[0]], ring.place(rows.positions[kept])
    return Plan(visibility, "both" if used else "new", used, None, kept, slots, places)


def _kept(rows: Rows, ring: Ring) -> tuple[Tensor, Tensor]:
    """Row and column of the real tokens that no later one of the step overwrites, so that no place is written twice."""
    device, positions = rows.positions.device, rows.positions
    counts, ends = rows.counts.to(device)[:, None], (rows.starts + rows.counts).to(device)[:, None]
    real = torch.arange(rows.seq, device=device) < counts
    stays = (positions < ring.pinned) | (positions >= ends - ring.turning)
    row, column = (real & stays).nonzero(as_tuple=True)
    return row, column


class Vectors:
    """Vectors of [slots, kv_heads, places, size], a head's one after another, as attention reads them."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device | str) -> None:
        self.parts: tuple[Tensor, ...] = (torch.zeros(shape, dtype=dtype, device=device),)

    def write(self, index: slice, run: slice, new: Tensor) -> None:
        """[batch, run, kv_heads, size] to places that are the same in every slot of `index`."""
        for part, piece in zip(self.parts, self.encode(new), strict=True):
            # By narrow and copy_: assigning to slices takes twice as long, which shows in a step of one token.
            part[index].narrow(2, run.start, run.stop - run.start).copy_(piece.transpose(1, 2))

    def scatter(self, slots: Tensor, places: Tensor, new: Tensor) -> None:
        """[..., kv_heads, size] to the place of each, `slots` and `places` being [...] int64."""
        for part, piece in zip(self.parts, self.encode(new), strict=True):
            # Two index tensors around a slice put the indexed dimensions first.
            part[slots, :, places] = piece

    def read(self, index: slice | Tensor, used: int, dtype: torch.dtype) -> Tensor:
        """The first `used` places: [batch, used, kv_heads, size], a view where nothing has to be converted."""
        return self.decode([part[index].narrow(2, 0, used) for part in self.parts], dtype).transpose(1, 2)

    def seen(self, new: Tensor) -> Tensor:
        """[..., size]: what `read` gives once `new` is written, so that pieces of any length say the same."""
        return self.decode(self.encode(new), new.dtype)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """[..., size] -> what is stored of it."""
        return (x if x.dtype == self.parts[0].dtype else x.to(self.parts[0].dtype),)

    def decode(self, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """The reverse of `encode`."""
        return parts[0] if parts[0].dtype == dtype else parts[0].to(dtype)


class Int8Vectors(Vectors):
    """The same in 8 bits an entry: integers of -127 to 127, and a float32 scale a vector.

    A finite entry is off by half a scale at most, the scale being the vector's largest magnitude / 127. A vector with
    an entry that is not finite reads as NaN throughout.
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
            Int8Vectors(shape, device) if quantized else Vectors(shape, dtype, device) for _ in range(2)
        )
        self.read_as = dtype

    @property
    def tensors(self) -> Iterator[Tensor]:
        yield from (*self.keys.parts, *self.values.parts)

    def extend(self, rows: Rows, plan: Plan, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new [batch, seq, kv_heads, head]; returns what `plan.visibility` speaks of."""
        return self._extend(self.keys, rows, plan, keys), self._extend(self.values, rows, plan, values)

    @staticmethod
    def _extend(vectors: Vectors, rows: Rows, plan: Plan, new: Tensor) -> Tensor:
        if plan.looks_at == "stored":
            _store(vectors, rows, plan, new)
            return vectors.read(rows.index, plan.used, new.dtype)
        looked_at = vectors.seen(new)
        if plan.looks_at == "both":
            looked_at = torch.cat((vectors.read(rows.index, plan.used, new.dtype), looked_at), dim=1)
        _store(vectors, rows, plan, new)
        return looked_at

    def fill(self, rows: Rows, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores [batch, n, kv_heads, head] from the first place on; returns them as `read` will."""
        self.read_as = keys.dtype
        for vectors, new in ((self.keys, keys.detach()), (self.values, values.detach())):
            if isinstance(rows.index, slice):
                vectors.write(rows.index, slice(0, new.shape[1]), new)
            else:
                vectors.scatter(rows.slots[:, None], torch.arange(new.shape[1], device=new.device)[None], new)
        return self.keys.seen(keys), self.values.seen(values)

    def read(self, rows: Rows, used: int) -> tuple[Tensor, Tensor]:
        """The first `used` places, [batch, used, kv_heads, head]."""
        return self.keys.read(rows.index, used, self.read_as), self.values.read(rows.index, used, self.read_as)


def _store(vectors: Vectors, rows: Rows, plan: Plan, new: Tensor) -> None:
    new = new.detach()
    if plan.run is not None and isinstance(rows.index, slice):
        vectors.write(rows.index, plan.run, new)
    else:
        assert plan.slots is not None and plan.places is not None
        vectors.scatter(plan.slots, plan.places, new if plan.kept is None else new[plan.kept])


class StateStore:
    """State of one state space layer: of one size, however long the sequence."""

    def __init__(
        self, shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype, device: torch.device | str
    ) -> None:
        """`shapes`: of `state_shapes`."""
        self.conv = torch.zeros(shapes[0], dtype=dtype, device=device)
        self.state = torch.zeros(shapes[1], dtype=torch.float32, device=device)

    @property
    def tensors(self) -> Iterator[Tensor]:
        yield from (self.conv, self.state)

    def read(self, index: slice | Tensor) -> SequenceState:
        return SequenceState(self.conv[index], self.state[index])

    def write(self, index: slice | Tensor, new: SequenceState) -> None:
        self.conv[index] = new.conv.detach()
        self.state[index] = new.state.detach()


def state_shapes(config: StateSpaceConfig, hidden_size: int, slots: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the convolution's inputs [slots, channels, conv_width - 1] and the states [slots, heads, head, state_size]."""
    inner = config.expand * hidden_size
    conv = slots, inner + 2 * config.groups * config.state_size, config.conv_width - 1
    return conv, (slots, inner // config.head_size, config.head_size, config.state_size)
