"""Files of named shards of parameters and their optimizer state: each rank writes its own and reads any."""

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
    """The shards that one rank updates, copied to the host's memory."""

    shards: dict[str, Tensor]
    """By `shard_name`; [numel] each, or a scalar."""
    shapes: dict[str, tuple[int, ...]]
    """Shapes of the whole parameters, by their names in the model."""


@dataclass(frozen=True)
class Shard:
    """A range of elements of one parameter in a file."""

    start: int
    """First element, in the flattened parameter."""
    numel: int
    file: Any
    stored_as: str


def shard_name(name: str, key: str, start: int) -> str:
    """Name of the elements from `start` on of a parameter (`key` master), or of its optimizer state `key`."""
    return f"{name}:{key}:{start}"


def write_shards(path: Path, snapshot: Snapshot, own: Mapping[str, Tensor]) -> None:
    """Write the shards of one rank, and its `own` state. All tensors are on the CPU and contiguous."""
    metadata = {"shapes": json.dumps({name: list(shape) for name, shape in snapshot.shapes.items()})}
    save_file({**snapshot.shards, **{_RANK + name: tensor for name, tensor in own.items()}}, path, metadata=metadata)


def read_own(path: Path) -> dict[str, Tensor]:
    """State that the rank of this file saved for itself."""
    with safe_open(path, framework="pt") as file:
        return {name.removeprefix(_RANK): file.get_tensor(name) for name in file.keys() if name.startswith(_RANK)}  # noqa: SIM118


class ShardFiles:
    """The shards of all ranks of a checkpoint: the `Source` of `resharding.restore`.

    Reads only the requested elements. A parameter that was split over tensor-parallel ranks is stored as slices
    (`slice_name`), and can be read whole or in the slices of another split.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._shards: dict[str, dict[str, list[Shard]]] = {}
        for path in paths:
            file: Any = safe_open(path, framework="pt")
            for name, shape in json.loads(file.metadata()["shapes"]).items():
                self.shapes[name] = tuple(shape)
            for stored in file.keys():  # noqa: SIM118
                if not stored.startswith(_RANK):
                    name, key, start = stored.rsplit(":", 2)
                    shard = Shard(int(start), prod(file.get_slice(stored).get_shape()), file, stored)
                    self._shards.setdefault(name, {}).setdefault(key, []).append(shard)
        for keys in self._shards.values():
            for shards in keys.values():
                shards.sort(key=lambda shard: shard.start)

    def keys(self, name: str) -> set[str]:
        """Raises ValueError for a parameter that is not there."""
        return set(self._shards[self._stored_names(name)[0]])

    def read(self, name: str, key: str, start: int, numel: int) -> Tensor:
        """Elements [numel] from `start` of the flattened parameter. ValueError where some are missing."""
        if name not in self._shards:
            return self._resplit(name, key).flatten()[start:][:numel]
        parts, position, end = [], start, start + numel
        for shard in self._shards[name].get(key, []):
            if shard.start <= position < min(end, shard.start + shard.numel):
                stop = min(end, shard.start + shard.numel)
                parts.append(shard.file.get_slice(shard.stored_as)[position - shard.start : stop - shard.start])
                position = stop
        if position < end:
            raise ValueError(f"the checkpoint lacks elements {position} to {end} of {key} of {name}")
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def scalar(self, name: str, key: str) -> Tensor | None:
        shard = self._shards[self._stored_names(name)[0]][key][0]
        value: Tensor = shard.file.get_tensor(shard.stored_as)
        return value if value.ndim == 0 else None

    def weights(self, key: str) -> dict[str, Tensor]:
        """Every parameter that has `key`, in full shape."""
        found = sorted(name for name in self.shapes if key in self.keys(name))
        return {name: self.read(name, key, 0, prod(self.shapes[name])).view(self.shapes[name]) for name in found}

    def _stored_names(self, name: str) -> list[str]:
        """Names under which the elements of a parameter are stored: its own, or those of all its slices."""
        if name in self._shards:
            return [name]
        whole, _ = split_slice_name(name)
        slices = [each for each in self._shards if split_slice_name(each)[0] == whole]
        if not slices:
            raise ValueError(f"the checkpoint has no parameter {whole}: it is of another model")
        return sorted(slices, key=lambda each: (split_slice_name(each)[1] or (0, 0, 0))[1])

    def _resplit(self, name: str, key: str) -> Tensor:
        """A slice or the whole parameter, in its shape, from the slices in the checkpoint."""
        whole, wanted = split_slice_name(name)
        parts = []
        for stored in self._stored_names(name):
            _, slice_ = split_slice_name(stored)
            shape = list(self.shapes[whole])
            if slice_ is not None:
                shape[slice_[0]] //= slice_[2]
            parts.append((slice_, self.read(stored, key, 0, prod(shape)).view(shape)))
        first = parts[0][0]
        full = torch.cat([part for _, part in parts], dim=first[0]) if first else parts[0][1]
        if wanted is None:
            return full
        dim, index, count = wanted
        return full.chunk(count, dim)[index]


def slice_name(name: str, dim: int, index: int, count: int) -> str:
    """Name of slice `index` of a parameter that tensor parallelism divides into `count` along `dim`."""
    return f"{name}@{dim}.{index}.{count}"


def split_slice_name(name: str) -> tuple[str, tuple[int, int, int] | None]:
    whole, _, slice_ = name.partition("@")
    if not slice_:
        return whole, None
    dim, index, count = (int(each) for each in slice_.split("."))
    return whole, (dim, index, count)
