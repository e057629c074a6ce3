"""Texts with edits, and their sketches in parts, as the tests of deduplication need them."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sluice.data.config import RefineConfig
from sluice.data.deduplication.near import Duplicate, candidate_pairs, greedy_ranks, near_duplicates, verified_pairs
from sluice.data.deduplication.sketch import sketch, write_sketches
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.document import content_id

CONFIG = RefineConfig()


def passage(seed: int, words: int = 300) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(50_000)}" for _ in range(words)]


def edited(words: list[str], edits: int, seed: int) -> str:
    generator = random.Random(seed)
    changed = list(words)
    for place in generator.sample(range(len(words)), edits):
        changed[place] = f"edit{generator.randrange(10**6)}"
    return " ".join(changed)


def write_parts(
    texts: Sequence[str], folder: Path, config: RefineConfig = CONFIG, per_part: int = 5
) -> list[SketchPart]:
    parts = []
    for start in range(0, max(len(texts), 1), per_part):
        path = folder / f"part-{start:04d}"
        write_sketches(path, [sketch(text, config) for text in texts[start : start + per_part]], config)
        parts.append(SketchPart(path))
    return parts


def find(
    texts: Sequence[str],
    folder: Path,
    config: RefineConfig = CONFIG,
    *,
    per_part: int = 5,
    eligible: np.ndarray | None = None,
) -> list[Duplicate]:
    chosen = np.ones(len(texts), bool) if eligible is None else eligible
    ids, lengths = [content_id(text) for text in texts], [len(text) for text in texts]
    parts = write_parts(texts, folder, config, per_part)
    pairs = verified_pairs(parts, candidate_pairs(parts, greedy_ranks(ids, lengths, chosen)), config.min_jaccard)
    return near_duplicates(ids, lengths, pairs, chosen, config.min_jaccard)
