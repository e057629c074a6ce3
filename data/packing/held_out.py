"""Sources of the documents of a held-out split, to report the loss by source."""

from array import array
from pathlib import Path

import numpy as np

from sluice.data.packing.report import SourceCounts
from sluice.data.packing.shards import save
from sluice.data.split import Split


class HeldOutTable:
    """Sources of the documents of one held-out split in stored order: 8 bytes a document."""

    def __init__(self) -> None:
        self.counts: dict[str, SourceCounts] = {}
        self._numbers: dict[str, int] = {}
        self._source = array("q")

    def add(self, source: str, tokens: int, size_bytes: int) -> None:
        counts = self.counts.setdefault(source, SourceCounts())
        counts.documents += 1
        counts.tokens += tokens
        counts.bytes += size_bytes
        self._source.append(self._numbers.setdefault(source, len(self._numbers)))

    def save(self, out: Path, split: Split) -> dict[str, SourceCounts]:
        """Write `{split}.sources.npy`, [documents] int64, indices into the sorted names; return the counts by name."""
        names = sorted(self.counts)
        # Sorted, because index.json does not keep the order in which the sources were met.
        places = np.empty(len(names), dtype=np.int64)
        places[[self._numbers[name] for name in names]] = np.arange(len(names))
        save(out / f"{split}.sources.npy", places[self._source])
        return {name: self.counts[name] for name in names}
