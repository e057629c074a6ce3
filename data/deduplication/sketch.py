"""The sketch of a document: all that deduplication needs to know of it once its text is put away."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.core.files import atomic_write
from sluice.data.config import RefineConfig
from sluice.data.deduplication.minhash import band_keys, signature
from sluice.data.deduplication.paragraphs import piece_hashes
from sluice.data.deduplication.ragged_arrays import write_column
from sluice.data.deduplication.shingles import shingles
from sluice.data.deduplication.sketch_store import write_bands
from sluice.data.deduplication.winnowing import anchors
from sluice.data.deduplication.words import word_hashes

_NONE = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Sketch:
    """Of one document. Hashes are 64-bit; pieces and anchors are empty where the settings leave them unused."""

    signature: np.ndarray
    """MinHash, [buckets, hashes a bucket] uint32."""
    shingles: np.ndarray
    """Word n-grams, sorted and distinct, [n] uint64."""
    pieces: np.ndarray
    """Paragraphs and lines, sorted and distinct, [n] uint64."""
    anchors: np.ndarray
    """Winnowed word runs, sorted; one that occurs at several places is there twice. [n] uint64."""


def sketch(text: str, config: RefineConfig, hashes: np.ndarray | None = None) -> Sketch:
    """The sketch of a text; `hashes` are its `word_hashes` where the caller has them."""
    words = word_hashes(text) if hashes is None else hashes
    grams = shingles(words, config.minhash_ngram)
    return Sketch(
        signature=signature(grams, config),
        shingles=grams,
        pieces=_NONE if config.max_piece_copies is None else piece_hashes(text, config.min_piece_words),
        anchors=_NONE if config.min_substring_words is None else anchors(words, config.min_substring_words),
    )


def write_sketches(path: Path, sketches: Sequence[Sketch], config: RefineConfig) -> None:
    """Write the sketches of one part, in order, as the folder `path`; a folder that is there already is replaced."""
    shape = (-1, config.minhash_buckets, config.minhash_hashes_per_bucket)
    signatures = np.array([each.signature for each in sketches], dtype=np.uint32).reshape(shape)
    with atomic_write(path) as unfinished:
        unfinished.mkdir(parents=True)
        write_bands(unfinished, band_keys(signatures))
        for name in ("shingles", "pieces", "anchors"):
            write_column(unfinished, name, (getattr(each, name) for each in sketches))
