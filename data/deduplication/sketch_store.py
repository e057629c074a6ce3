"""The sketches of one part of the corpus on disk: .npy files that are read in pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sluice.core.files import naming


def write_bands(folder: Path, keys: np.ndarray) -> None:
    """Write the keys [documents, buckets] uint64 bucket by bucket, as they are read. An OSError names the file."""
    path = folder / "bands.npy"
    with naming(path):
        np.save(path, np.ascontiguousarray(keys.T))


@dataclass(frozen=True)
class SketchPart:
    """The sketches of one part on disk. The documents of a list of parts are numbered in the order of the list."""

    path: Path

    @cached_property
    def _shape(self) -> tuple[int, int]:
        buckets, documents = np.load(self.path / "bands.npy", mmap_mode="r").shape
        return int(buckets), int(documents)

    def __len__(self) -> int:
        return self._shape[1]

    @property
    def buckets(self) -> int:
        return self._shape[0]

    def band(self, bucket: int) -> np.ndarray:
        """Read the keys of one bucket, [documents] uint64."""
        return np.array(np.load(self.path / "bands.npy", mmap_mode="r")[bucket])


def folders(parts: Sequence[SketchPart]) -> list[Path]:
    return [part.path for part in parts]


def band(parts: Sequence[SketchPart], bucket: int) -> np.ndarray:
    """Read the keys of one bucket of all parts, [documents] uint64."""
    return np.concatenate([np.empty(0, np.uint64), *(part.band(bucket) for part in parts)])


def buckets(parts: Sequence[SketchPart]) -> int:
    """Return the number of bands. Raises ValueError if the parts were written with different settings."""
    found = {part.buckets for part in parts}
    if len(found) > 1:
        raise ValueError(f"sketches of {sorted(found)} buckets do not compare: delete them and run refine again")
    return found.pop() if found else 0
