"""Token shards as memory maps with document boundaries, on three sides that share no document."""

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from pydantic import BaseModel

from data.config import PackConfig
from data.document import Document, read_documents
from data.progress import Progress, no_progress
from data.split import SPLITS, Split, split_of
from data.tokenizer import END_OF_TEXT, load_tokenizer

__all__ = ["PackReport", "PackedTokens", "SplitCounts", "pack", "split_of"]

_DOCUMENTS_AT_ONCE = 256


class SplitCounts(BaseModel):
    """What one side holds."""

    documents: int = 0
    tokens: int = 0
    """The end-of-text token of each document included."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    shards: list[str] = []


class PackReport(BaseModel):
    """What was packed; without `timings` it is index.json."""

    dtype: str
    vocab_size: int
    eos_id: int
    splits: dict[Split, SplitCounts]
    timings: dict[str, float] = {}


def pack(
    config: PackConfig, documents: Path, tokenizer: Path, out: Path, *, progress: Progress = no_progress
) -> PackReport:
    """Encode every document, an end-of-text token after it, to `{split}-NNNN.bin`, `{split}.offsets.npy`, index.json.

    Documents keep the order of `documents` and may cross shards. ValueError if a side of the split stays empty.
    """
    started = time.perf_counter()
    encoder = load_tokenizer(tokenizer)
    eos = encoder.token_to_id(END_OF_TEXT)
    assert eos is not None, f"{tokenizer} has no {END_OF_TEXT}"
    size = encoder.get_vocab_size()
    dtype = np.dtype("<u2" if size <= 2**16 else "<u4")
    writers = {split: _ShardWriter(out, split, dtype, config.tokens_per_shard) for split in SPLITS}
    total = sum(1 for _ in read_documents(documents))
    texts = read_documents(documents)
    done = 0
    while batch := list(islice(texts, _DOCUMENTS_AT_ONCE)):
        for document, encoding in zip(batch, encoder.encode_batch_fast([each.text for each in batch]), strict=True):
            _add(writers[split_of(document.id, config)], document, encoding.ids, eos)
        done += len(batch)
        progress(done, total, "encoding documents")
    counts = {split: writer.close() for split, writer in writers.items()}
    _refuse_empty(counts)
    report = PackReport(dtype=dtype.name, vocab_size=size, eos_id=eos, splits=counts)
    index = json.dumps(report.model_dump(exclude={"timings"}), indent=2, sort_keys=True)
    (out / "index.json").write_text(index + "\n", encoding="utf-8")
    report.timings = {"pack_s": time.perf_counter() - started}
    return report


def _add(writer: "_ShardWriter", document: Document, ids: list[int], eos: int) -> None:
    writer.write(np.array([*ids, eos], dtype=writer.dtype))
    writer.counts.documents += 1
    writer.counts.bytes += len(document.text.encode())


def _refuse_empty(counts: dict[Split, SplitCounts]) -> None:
    empty = [split for split, count in counts.items() if not count.documents]
    if empty:
        held = ", ".join(f"{split} {count.documents}" for split, count in counts.items())
        raise ValueError(
            f"no document falls into {' or '.join(empty)} ({held}): add documents, or raise pack.valid_fraction and "
            "pack.test_fraction"
        )


class _ShardWriter:
    """Appends tokens to `{split}-NNNN.bin`, each shard full but the last."""

    def __init__(self, out: Path, split: Split, dtype: np.dtype, tokens_per_shard: int) -> None:
        self.out, self.split, self.dtype, self.tokens_per_shard = out, split, dtype, tokens_per_shard
        self.counts = SplitCounts()
        self.offsets = [0]
        self.file: IO[bytes] | None = None

    def write(self, tokens: np.ndarray) -> None:
        """Append the tokens [n] of one whole document."""
        while len(tokens):
            room = self.tokens_per_shard - self.counts.tokens % self.tokens_per_shard
            if self.file is None or room == self.tokens_per_shard:
                self._open_next()
            assert self.file is not None
            self.file.write(tokens[:room].tobytes())
            self.counts.tokens += len(tokens[:room])
            tokens = tokens[room:]
        self.offsets.append(self.counts.tokens)

    def _open_next(self) -> None:
        if self.file is not None:
            self.file.close()
        self.counts.shards.append(f"{self.split}-{len(self.counts.shards):04d}.bin")
        self.file = (self.out / self.counts.shards[-1]).open("wb")

    def close(self) -> SplitCounts:
        if self.file is not None:
            self.file.close()
        np.save(self.out / f"{self.split}.offsets.npy", np.array(self.offsets, dtype=np.int64))
        return self.counts


class PackedTokens:
    """One side of a packed folder, mapped into memory.

    `tokens` reads as one sequence over all shards; document i is tokens[offsets[i] : offsets[i + 1]], its end included.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        path = folder / "index.json"
        if not path.is_file():
            raise ValueError(f"{path} does not exist: run the pack step first")
        index = json.loads(path.read_text(encoding="utf-8"))
        counts = index["splits"][split]
        self.vocab_size: int = index["vocab_size"]
        self.eos_id: int = index["eos_id"]
        self.tokens = TokenSequence([folder / name for name in counts["shards"]], np.dtype(index["dtype"]))
        self.offsets: np.ndarray = np.load(folder / f"{split}.offsets.npy", mmap_mode="r")
        """[documents + 1] int64."""
        if len(self.tokens) != counts["tokens"] or int(self.offsets[-1]) != counts["tokens"]:
            raise ValueError(
                f"{folder} holds {len(self.tokens)} {split} tokens, index.json says {counts['tokens']}: pack again"
            )

    def document(self, index: int) -> np.ndarray:
        """Tokens of one document, its end token included."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.tokens.read(start, end - start)


class TokenSequence:
    """A 1-D view over token shards of equal length (the last may be shorter)."""

    def __init__(self, shards: list[Path], dtype: np.dtype) -> None:
        self.dtype = dtype
        self.maps = [np.memmap(shard, dtype=dtype, mode="r") for shard in shards]
        self.starts = np.cumsum([0, *map(len, self.maps)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens [start, start + length) as a new array, [length]. IndexError past either end."""
        if start < 0 or length < 0 or start + length > len(self):
            raise IndexError(f"tokens {start} to {start + length} of {len(self)}")
        return np.concatenate([np.empty(0, self.dtype), *self._pieces(start, start + length)])

    def _pieces(self, start: int, end: int) -> Iterator[np.ndarray]:
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < end:
            base = int(self.starts[shard])
            piece = self.maps[shard][start - base : end - base]
            yield piece
            start += len(piece)
            shard += 1
