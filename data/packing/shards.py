"""Token shards on disk: appended by one writer, read as memory maps."""

import json
from array import array
from pathlib import Path
from typing import IO

import numpy as np

from sluice.core.files import naming
from sluice.data.packing.report import Layout, SourceCounts, SplitCounts
from sluice.data.split import Split

PADDING = -1
"""Document number of tokens that only fill a row."""


def save(path: Path, values: array | np.ndarray) -> None:
    """Write int64 values [n] as .npy."""
    with naming(path):
        np.save(path, np.array(values, dtype=np.int64))


class ShardWriter:
    """Appends tokens to `{split}-NNNN.bin`; each shard but the last is full. An OSError names the file."""

    def __init__(self, out: Path, split: Split, dtype: np.dtype, tokens_per_shard: int) -> None:
        self.out, self.split, self.dtype, self.tokens_per_shard = out, split, dtype, tokens_per_shard
        self.counts = SplitCounts()
        self.offsets = array("q", [0])
        self.file: IO[bytes] | None = None

    def write(self, tokens: np.ndarray) -> None:
        """Append the tokens [n] of one whole document, or of one piece of a row."""
        while len(tokens):
            space = self.tokens_per_shard - self.counts.tokens % self.tokens_per_shard
            if self.file is None or space == self.tokens_per_shard:
                self._close_last()
                self.counts.shards.append(f"{self.split}-{len(self.counts.shards):04d}.bin")
                self.file = (self.out / self.counts.shards[-1]).open("wb")
            with naming(self.out / self.counts.shards[-1]):
                self.file.write(tokens[:space].tobytes())
            self.counts.tokens += len(tokens[:space])
            tokens = tokens[space:]
        self.offsets.append(self.counts.tokens)

    def _close_last(self) -> None:
        if self.file is not None:
            with naming(self.out / self.counts.shards[-1]):
                self.file.close()

    def close(self) -> SplitCounts:
        self._close_last()
        save(self.out / f"{self.split}.offsets.npy", self.offsets)
        return self.counts


class PackedTokens:
    """One split of a packed folder, memory-mapped.

    Concatenated: document i is tokens[offsets[i] : offsets[i + 1]], including its end-of-text token. best_fit: these
    are the pieces in rows of `row_tokens`, padding being a piece of its own; `documents.npy` has their documents.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        path = folder / "index.json"
        if not path.is_file():
            raise ValueError(f"{path} does not exist: run the pack step first")
        index = json.loads(path.read_text(encoding="utf-8"))
        counts = index["splits"][split]
        self.split = split
        self.vocab_size: int = index["vocab_size"]
        self.eos_id: int = index["eos_id"]
        self.layout: Layout = index.get("layout", "concatenated") if split == "train" else "concatenated"
        self.row_tokens: int | None = index.get("row_tokens") if self.layout == "best_fit" else None
        self.documents: int = counts["documents"]
        known = counts.get("sources", {})
        self.sources = {name: SourceCounts.model_validate(known[name]) for name in sorted(known)}
        """Sources of a held-out split in the order of their numbers; empty where not known, as in older folders."""
        self.sequence = TokenSequence([folder / name for name in counts["shards"]], np.dtype(index["dtype"]))
        """All tokens, padding included."""
        self.offsets: np.ndarray = np.load(folder / f"{split}.offsets.npy", mmap_mode="r")
        """[pieces + 1] int64."""
        self._owners: np.ndarray | None = None
        if self.layout == "best_fit":
            self._owners = np.load(folder / f"{split}.documents.npy", mmap_mode="r")
        self._sources: np.ndarray | None = None
        if self.sources:
            path = folder / f"{split}.sources.npy"
            if not path.is_file():
                raise ValueError(f"{path} does not exist, though index.json names sources: pack again")
            self._sources = np.load(path, mmap_mode="r")
            if self._sources.shape != (self.documents,):
                raise ValueError(
                    f"{path} numbers the sources of {len(self._sources)} documents, and there are {self.documents}: "
                    "pack again"
                )
        if len(self.sequence) != counts["tokens"] or int(self.offsets[-1]) != counts["tokens"]:
            raise ValueError(
                f"{folder} holds {len(self.sequence)} {split} tokens, index.json says {counts['tokens']}: pack again"
            )

    @property
    def tokens(self) -> "TokenSequence":
        """One sequence over all shards. ValueError for rows, because windows across them would contain padding."""
        if self.layout == "best_fit":
            raise ValueError(
                f"the {self.split} tokens are in rows of {self.row_tokens} (pack.layout best_fit), not in a plain "
                "sequence: read them with sluice.data.packing.Loader, or set pack.layout to concatenated"
            )
        return self.sequence

    def document(self, index: int) -> np.ndarray:
        """Return the tokens of one document, including its end-of-text token, from all its rows."""
        if self._owners is None:
            return self._piece(index)
        pieces = np.flatnonzero(self._owners == index)
        lengths = self.offsets[pieces + 1] - self.offsets[pieces]
        # The rest of a cut document is shorter than its full rows, and may be stored before them.
        return np.concatenate([self._piece(int(piece)) for piece in pieces[np.argsort(-lengths, kind="stable")]])

    def _piece(self, index: int) -> np.ndarray:
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.sequence.read(start, end - start)

    def document_ids(self, start: int, length: int) -> np.ndarray:
        """Return the document of each of the tokens [start, start + length), [length] int64; PADDING for padding.

        Tokens of one row or window may attend to each other where these are equal.
        """
        if start < 0 or length < 0 or start + length > len(self.sequence):
            raise IndexError(f"tokens {start} to {start + length} of {len(self.sequence)}")
        if not length:
            return np.empty(0, dtype=np.int64)
        first, last = np.searchsorted(self.offsets, [start, start + length - 1], side="right") - 1
        bounds = np.clip(self.offsets[first : last + 2], start, start + length)
        pieces = np.arange(first, last + 1)
        return np.repeat(pieces if self._owners is None else self._owners[pieces], np.diff(bounds))

    def source_ids(self, start: int, length: int) -> np.ndarray:
        """Return the source number of each of the tokens [start, start + length), [length] int64."""
        assert self._sources is not None, f"the sources of the {self.split} side are not known"
        return np.asarray(self._sources[self.document_ids(start, length)])


class TokenSequence:
    """A 1-D view of token shards of equal length; the last may be shorter."""

    def __init__(self, shards: list[Path], dtype: np.dtype) -> None:
        self.dtype = dtype
        self.maps = [np.memmap(shard, dtype=dtype, mode="r") for shard in shards]
        self.starts = np.cumsum([0, *map(len, self.maps)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, length: int) -> np.ndarray:
        """Return tokens [start, start + length) as a new array, [length]. IndexError past either end."""
        if start < 0 or length < 0 or start + length > len(self):
            raise IndexError(f"tokens {start} to {start + length} of {len(self)}")
        found = [np.empty(0, self.dtype)]
        end = start + length
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < end:
            base = int(self.starts[shard])
            found.append(self.maps[shard][start - base : end - base])
            start += len(found[-1])
            shard += 1
        return np.concatenate(found)
