"""The sketch of a document: the hashes that deduplication compares instead of the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.core.files import atomic_write
from sluice.data.config import RefineConfig
from sluice.data.deduplication.minhash import band_keys, signature
from sluice.data.deduplication.paragraphs import PARAGRAPHS, paragraph_hashes
from sluice.data.deduplication.ragged_arrays import write_column
from sluice.data.deduplication.shingles import shingles
from sluice.data.deduplication.sketch_store import write_bands
from sluice.data.deduplication.winnowing import anchors
from sluice.data.deduplication.words import word_hashes

_NONE = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Sketch:
    """Hashes of one document, 64-bit. Paragraphs and anchors are empty where the settings do not use them."""

    signature: np.ndarray
    """MinHash, [buckets, hashes a bucket] uint32."""
    shingles: np.ndarray
    """Word n-grams, sorted and distinct, [n] uint64."""
    paragraphs: np.ndarray
    """Paragraphs and lines, sorted and distinct, [n] uint64."""
    anchors: np.ndarray
    """Winnowed word runs, sorted; one that occurs several times is there twice. [n] uint64."""


def sketch(text: str, config: RefineConfig, hashes: np.ndarray | None = None) -> Sketch:
    """Sketch a text; `hashes` are its `word_hashes`, if the caller has them."""
    words = word_hashes(text) if hashes is None else hashes
    grams = shingles(words, config.minhash_ngram)
    return Sketch(
        signature=signature(grams, config),
        shingles=grams,
        paragraphs=_NONE if config.max_piece_copies is None else paragraph_hashes(text, config.min_piece_words),
        anchors=_NONE if config.min_substring_words is None else anchors(words, config.min_substring_words),
    )


def write_sketches(path: Path, sketches: Sequence[Sketch], config: RefineConfig) -> None:
    """Write the sketches of one part, in order, as the folder `path`; an earlier one is replaced."""
    shape = (-1, config.minhash_buckets, config.minhash_hashes_per_bucket)
    signatures = np.array([each.signature for each in sketches], dtype=np.uint32).reshape(shape)
    with atomic_write(path) as unfinished:
        unfinished.mkdir(parents=True)
        write_bands(unfinished, band_keys(signatures))
        write_column(unfinished, "shingles", (each.shingles for each in sketches))
        write_column(unfinished, PARAGRAPHS, (each.paragraphs for each in sketches))
        write_column(unfinished, "anchors", (each.anchors for each in sketches))
