"""Files of named pieces of parameters and of their optimizer state: each rank writes its own, and reads any."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_RANK = "rank/"
"""Prefix of what belongs to the rank that wrote the file, such as the state of its random numbers."""


@dataclass(frozen=True)
class Snapshot:
    """What one rank steps, copied to the host's memory."""

    pieces: dict[str, Tensor]
    """By `piece_name`; [numel] each, or a scalar."""
    shapes: dict[str, tuple[int, ...]]
    """Of the whole parameters that the pieces are of, by the name in the model."""


@dataclass(frozen=True)
class Piece:
    start: int
    """In the flattened parameter."""
    numel: int
    file: Any
    stored_as: str


def piece_name(name: str, key: str, start: int) -> str:
    """Of the elements from `start` on of a parameter (`key` master), or of what the optimizer calls `key` of it."""
    return f"{name}:{key}:{start}"


def write_pieces(path: Path, snapshot: Snapshot, own: Mapping[str, Tensor]) -> None:
    """Write what one rank steps; `own` is for the same rank alone. All tensors are on the CPU and contiguous."""
    metadata = {"shapes": json.dumps({name: list(shape) for name, shape in snapshot.shapes.items()})}
    save_file({**snapshot.pieces, **{_RANK + name: tensor for name, tensor in own.items()}}, path, metadata=metadata)


def read_own(path: Path) -> dict[str, Tensor]:
    """What the rank of this file kept for itself."""
    with safe_open(path, framework="pt") as file:
        return {name.removeprefix(_RANK): file.get_tensor(name) for name in file.keys() if name.startswith(_RANK)}  # noqa: SIM118


class PieceFiles:
    """The pieces of all ranks of a checkpoint: the `Source` of `resharding.restore`.

    Reads no more than what is asked for. A parameter that was split over tensor-parallel ranks stands in the files as
    its shards (`shard_name`): it is read as a whole, or as the shards of another split, all the same.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._pieces: dict[str, dict[str, list[Piece]]] = {}
        for path in paths:
            self._index(safe_open(path, framework="pt"))
        for keys in self._pieces.values():
            for pieces in keys.values():
                pieces.sort(key=lambda piece: piece.start)

    def keys(self, name: str) -> set[str]:
        """Raises ValueError for a parameter that is not there."""
        return set(self._pieces[self._stored_names(name)[0]])

    def read(self, name: str, key: str, start: int, numel: int) -> Tensor:
        """Elements [numel] from `start` of the flattened parameter. ValueError where some are missing."""
        if name not in self._pieces:
            return self._resplit(name, key).flatten()[start:][:numel]
        parts, position, end = [], start, start + numel
        for piece in self._pieces[name].get(key, []):
            if piece.start <= position < min(end, piece.start + piece.numel):
                stop = min(end, piece.start + piece.numel)
                parts.append(piece.file.get_slice(piece.stored_as)[position - piece.start : stop - piece.start])
                position = stop
        if position < end:
            raise ValueError(f"the checkpoint lacks elements {position} to {end} of {key} of {name}")
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def scalar(self, name: str, key: str) -> Tensor | None:
        piece = self._pieces[self._stored_names(name)[0]][key][0]
        value: Tensor = piece.file.get_tensor(piece.stored_as)
        return value if value.ndim == 0 else None

    def weights(self, key: str) -> dict[str, Tensor]:
        """Every parameter that has `key`, in full shape."""
        found = sorted(name for name in self.shapes if key in self.keys(name))
        return {name: self.read(name, key, 0, prod(self.shapes[name])).view(self.shapes[name]) for name in found}

    def _index(self, file: Any) -> None:
        for name, shape in json.loads(file.metadata()["shapes"]).items():
            self.shapes[name] = tuple(shape)
        for stored in file.keys():  # noqa: SIM118
            if not stored.startswith(_RANK):
                name, key, start = stored.rsplit(":", 2)
                piece = Piece(int(start), prod(file.get_slice(stored).get_shape()), file, stored)
                self._pieces.setdefault(name, {}).setdefault(key, []).append(piece)

    def _stored_names(self, name: str) -> list[str]:
        """Under which names the elements of a parameter stand: its own, or those of all its shards."""
        if name in self._pieces:
            return [name]
        whole, _ = split_shard_name(name)
        shards = [each for each in self._pieces if split_shard_name(each)[0] == whole]
        if not shards:
            raise ValueError(f"the checkpoint has no parameter {whole}: it is of another model")
        return sorted(shards, key=lambda each: (split_shard_name(each)[1] or (0, 0, 0))[1])

    def _resplit(self, name: str, key: str) -> Tensor:
        """The shard or the whole parameter, in its shape, out of the shards that the checkpoint holds."""
        whole, wanted = split_shard_name(name)
        parts = []
        for stored in self._stored_names(name):
            _, shard = split_shard_name(stored)
            shape = _shard_shape(self.shapes[whole], shard)
            parts.append((shard, self.read(stored, key, 0, prod(shape)).view(shape)))
        first = parts[0][0]
        full = torch.cat([part for _, part in parts], dim=first[0]) if first else parts[0][1]
        if wanted is None:
            return full
        dim, index, count = wanted
        return full.chunk(count, dim)[index]


def shard_name(name: str, dim: int, index: int, count: int) -> str:
    """Of part `index` of a parameter that tensor parallelism cut into `count` equal parts along `dim`."""
    return f"{name}@{dim}.{index}.{count}"


def split_shard_name(name: str) -> tuple[str, tuple[int, int, int] | None]:
    whole, _, shard = name.partition("@")
    if not shard:
        return whole, None
    dim, index, count = (int(each) for each in shard.split("."))
    return whole, (dim, index, count)


def _shard_shape(shape: tuple[int, ...], shard: tuple[int, int, int] | None) -> tuple[int, ...]:
    if shard is None:
        return shape
    dim, _, count = shard
    return (*shape[:dim], shape[dim] // count, *shape[dim + 1 :])
