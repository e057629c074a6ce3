"""Unigram (Kudo 2018, arXiv 1804.10959): the most probable segmentation of a piece into tokens with probabilities.

Candidates are the merges of BPE. EM fits their probabilities, and those that matter least are removed, a quarter at a
time. The Hugging Face trainer sums in the order of a randomly seeded hash map and writes another file each time, so
the trainer is our own; the tokenizer is the library's.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from sluice.core.progress import Progress, no_progress
from sluice.data.tokenization.bpe import merged_tokens
from sluice.data.tokenization.bytelevel import SPLIT, byte_level, written
from sluice.data.tokenization.lattice import LONGEST_TOKEN, Lattice

_CANDIDATES_A_TOKEN = 4
_KEPT_A_ROUND = 0.75
_STEPS_A_ROUND = 2
_MOST_WORDS = 300_000
"""Only the most frequent, to bound memory to about 1 GB; the others are too rare to change a probability."""
_LONGEST_WORD_BYTES = 32
_LEAST_COUNT = 1e-3
"""Count of a byte that does not occur: it needs a probability, or text with it could not be encoded."""


def train_unigram(
    texts: Sequence[str],
    vocab_size: int,
    min_frequency: int,
    special: Sequence[str],
    *,
    progress: Progress = no_progress,
) -> tuple[Tokenizer, str]:
    """Train a tokenizer of at most `vocab_size` tokens; returns it and the name of the trainer.

    Ids: `special`, then tokens by decreasing probability, including the 256 bytes. Tokens occur at least
    `min_frequency` times; if the text has too few of those, the tokenizer is smaller.
    """
    words, weights = count_words(texts)
    progress(len(texts), len(texts), "fitting token probabilities")
    target = vocab_size - len(special)
    candidates = dict.fromkeys(merged_tokens(texts, _CANDIDATES_A_TOKEN * target, SPLIT))
    fitting = [token for token in candidates if len(token) <= LONGEST_TOKEN]
    scores = _fit(words, weights, fitting, target, min_frequency)
    ranked = sorted((-round(score, 6), token) for token, score in scores.items())
    vocabulary = [(token, 0.0) for token in special] + [(written(token), -loss) for loss, token in ranked]
    tokenizer = byte_level(models.Unigram(vocab=vocabulary, unk_id=None, byte_fallback=False))
    tokenizer.add_special_tokens(list(special))
    return tokenizer, "numpy"


def count_words(texts: Sequence[str]) -> tuple[list[bytes], np.ndarray]:
    """Return the sorted most frequent pieces, split into at most 32 bytes, and their counts, [words] float64."""
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    pieces: Counter[str] = Counter()
    for text in texts:
        pieces.update(piece for piece, _ in split.pre_tokenize_str(text))
    counts: Counter[bytes] = Counter()
    for piece, count in pieces.items():
        encoded = piece.encode()
        for start in range(0, len(encoded), _LONGEST_WORD_BYTES):
            counts[encoded[start : start + _LONGEST_WORD_BYTES]] += count
    commonest = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_WORDS]
    words = sorted(word for word, _ in commonest)
    return words, np.array([counts[word] for word in words], dtype=np.float64)


def _fit(
    words: list[bytes], weights: np.ndarray, tokens: list[bytes], target: int, min_frequency: int
) -> dict[bytes, float]:
    """Return the log-probabilities of the best `target` tokens, which always include the single bytes."""
    index = {token: number for number, token in enumerate(tokens)}
    lattice, inside = Lattice(words, index), Lattice(tokens, index, whole=False)
    single = np.array([len(token) == 1 for token in tokens])
    occurrences = np.bincount(lattice.edges[:, 3], weights[lattice.edges[:, 2]], minlength=len(tokens))
    alive = single | (occurrences >= min_frequency)
    scores = _scores(occurrences, alive, single)
    while True:
        lattice.keep(alive)
        inside.keep(alive)
        for _ in range(_STEPS_A_ROUND):
            counts = lattice.expected_counts(scores, weights)
            scores = _scores(counts, alive, single)
        if alive.sum() <= target:
            return {token: float(scores[number]) for token, number in index.items() if alive[number]}
        # The log-likelihood that the text loses without each token, when others replace it.
        instead = inside.best(scores)
        with np.errstate(invalid="ignore"):
            loss = np.where(np.isfinite(scores) & np.isfinite(instead), counts * (scores - instead), 0.0)
        # Keep the single bytes and the tokens of greatest loss; ties by their bytes.
        keep = max(target, int(alive.sum() * _KEPT_A_ROUND))
        order = sorted(np.flatnonzero(alive & ~single), key=lambda number: (-loss[number], tokens[number]))
        alive = single.copy()
        alive[order[: keep - int(single.sum())]] = True
        scores = np.where(alive, scores, -np.inf)


def _scores(counts: np.ndarray, alive: np.ndarray, single: np.ndarray) -> np.ndarray:
    held = np.where(single, np.maximum(counts, _LEAST_COUNT), counts)
    # An unused token stays finite, to avoid differences of infinities.
    held = np.where(alive, np.maximum(held, 1e-30), 0.0)
    with np.errstate(divide="ignore"):
        return np.log(held) - math.log(held.sum())
