"""The pack step: encode documents, split by content hash, mix by source, order and lay out."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datatrove.data import Document

from sluice.core.files import naming
from sluice.core.progress import Progress, no_progress
from sluice.data.config import PackConfig
from sluice.data.document import read_documents
from sluice.data.packing.held_out import HeldOutTable
from sluice.data.packing.report import PackReport
from sluice.data.packing.shards import ShardWriter, TokenSequence
from sluice.data.packing.training import Training, TrainingTable
from sluice.data.split import SPLITS, Split, split_of

if TYPE_CHECKING:
    from sluice.data.tokenization.encoder import TextEncoder

_DOCUMENTS_AT_ONCE = 256
# Batches are limited by characters too, to bound their memory where documents are long.
_CHARACTERS_AT_ONCE = 2_000_000


def pack(
    config: PackConfig, documents: Path, tokenizer: Path, out: Path, *, progress: Progress = no_progress
) -> PackReport:
    """Encode every document, followed by an end-of-text token, to `{split}-NNNN.bin`, `{split}.offsets.npy`,
    index.json, and the sources of the held-out ones to `{split}.sources.npy`.

    Documents keep the order of `documents` and may cross shards. If the settings mix, shuffle or lay out the training
    documents, these are first encoded in stored order and then written again; the held-out splits never are. Raises
    ValueError if a split is empty or the mix is impossible.
    """
    from sluice.data.tokenization.encoder import load_encoder

    started = time.perf_counter()
    encoder = load_encoder(tokenizer)
    dtype = np.dtype("<u2" if encoder.vocab_size <= 2**16 else "<u4")
    is_mixed = bool(config.mix) or config.train_tokens is not None
    # Whether training documents are used in another order, number or layout than stored.
    again = is_mixed or config.order != "stored" or config.layout != "concatenated"
    stored = out / "encoded" if again else out
    stored.mkdir(exist_ok=True)
    writers = {
        split: ShardWriter(stored if split == "train" else out, split, dtype, config.tokens_per_shard)
        for split in SPLITS
    }
    held_out: dict[Split, HeldOutTable] = {split: HeldOutTable() for split in SPLITS if split != "train"}
    table = _encode(config, documents, encoder, writers, held_out, progress)
    counts = {split: writer.close() for split, writer in writers.items()}
    if empty := [split for split, count in counts.items() if not count.documents]:
        held = ", ".join(f"{split} {count.documents}" for split, count in counts.items())
        raise ValueError(
            f"no document falls into {' or '.join(empty)} ({held}): add documents, or raise pack.valid_fraction and "
            "pack.test_fraction"
        )
    for split, table_of_split in held_out.items():
        counts[split].sources = table_of_split.save(out, split)
    training = Training(config, table)
    report = PackReport(
        dtype=dtype.name,
        vocab_size=encoder.vocab_size,
        eos_id=encoder.end_of_text,
        splits=counts,
        layout=config.layout,
        row_tokens=config.row_tokens,
        sources=training.sources(),
    )
    if again:
        encoded = TokenSequence([stored / name for name in counts["train"].shards], dtype)
        writer = ShardWriter(out, "train", dtype, config.tokens_per_shard)
        report.costs = training.lay_out(encoded, writer, encoder.end_of_text)
        report.splits["train"] = writer.close()
        shutil.rmtree(stored)
    index = json.dumps(report.model_dump(exclude={"timings"}), indent=2, sort_keys=True)
    with naming(out / "index.json"):
        (out / "index.json").write_text(index + "\n", encoding="utf-8")
    report.timings = {"pack_s": time.perf_counter() - started}
    return report


def _encode(  # noqa: PLR0917
    config: PackConfig,
    documents: Path,
    encoder: "TextEncoder",
    writers: Mapping[Split, ShardWriter],
    held_out: Mapping[Split, HeldOutTable],
    progress: Progress,
) -> TrainingTable:
    """Write every document with the writer of its split, and add it to the table of its split, in stored order."""
    table = TrainingTable()
    total = sum(1 for _ in read_documents(documents))
    done = 0
    for batch in _batches(read_documents(documents)):
        for document, ids in zip(batch, encoder.encode_batch([each.text for each in batch]), strict=True):
            split, size_bytes = split_of(document.id, config), len(document.text.encode())
            source = str(document.metadata.get("source", "unnamed"))
            writer = writers[split]
            writer.write(np.array([*ids, encoder.end_of_text], dtype=writer.dtype))
            writer.counts.documents += 1
            writer.counts.bytes += size_bytes
            table.number(source)
            if split == "train":
                table.add(document.id, source, len(ids) + 1, size_bytes)
            else:
                held_out[split].add(source, len(ids) + 1, size_bytes)
        done += len(batch)
        progress(done, total, "encoding documents")
    return table


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == _DOCUMENTS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
