"""Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909): repeatedly merge the most frequent pair of neighbours.

rustbpe trains in less than half the time of the Hugging Face trainer, and breaks ties by the lower pair of ids: the
merges are a function of the counts alone, whatever the order of texts or the number of threads.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from sluice.core.progress import Progress, no_progress
from sluice.data.tokenization.bytelevel import SPLIT, byte_level, character_of_byte, written
from sluice.data.tokenization.encoder import LONGEST_FOR_TIKTOKEN, encoder_of

# rustbpe counts pairs in 32 bits, and a pair cannot occur more often than there are bytes.
_MOST_BYTES_FOR_RUSTBPE = 2**31 - 1
_TEXTS_AT_ONCE = 1024
_BYTES = 256


def train_bpe(
    texts: Sequence[str],
    vocab_size: int,
    min_frequency: int,
    special: Sequence[str],
    *,
    split: str = SPLIT,
    progress: Progress = no_progress,
) -> tuple[Tokenizer, str]:
    """Train a tokenizer of at most `vocab_size` tokens; returns it and the name of the library that trained it.

    Ids: `special`, the 256 bytes in the order of their characters, the merges. If the text has too few pairs of at
    least `min_frequency`, the tokenizer is smaller.
    """
    if sum(len(text.encode()) for text in texts) <= _MOST_BYTES_FOR_RUSTBPE:
        tokens = merged_tokens(texts, vocab_size - len(special), split, progress)
        merges = merges_of(tokens)
        if merges is not None and len(tokens) == vocab_size - len(special):
            names = [*special, *sorted(character_of_byte().values()), *map(written, tokens[_BYTES:])]
            vocabulary = {name: index for index, name in enumerate(names)}
            pairs = [(written(left), written(right)) for left, right in merges]
            tokenizer = byte_level(models.BPE(vocab=vocabulary, merges=pairs), split)
            tokenizer.add_special_tokens(list(special))
            tokenizer.encode_special_tokens = True
            if _occurs(tokens[-1], tokenizer, texts, min_frequency):
                return tokenizer, "rustbpe"
    return by_tokenizers(texts, vocab_size, min_frequency, special, split=split, progress=progress), "tokenizers"


def merged_tokens(texts: Sequence[str], count: int, split: str, progress: Progress = no_progress) -> list[bytes]:
    """Return the 256 bytes and then the merged tokens in order, `count` in total or as many as the text has."""
    import rustbpe

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(
        _reporting(texts, progress), max(count, _BYTES), buffer_size=_TEXTS_AT_ONCE, pattern=split
    )
    ranked = sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])
    return [bytes(token) for token, _ in ranked]


def merges_of(tokens: list[bytes]) -> list[tuple[bytes, bytes]] | None:
    """Return the pair merged to each token after the first 256; None if a token occurs twice or has no single pair."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    if len(ranks) != len(tokens):
        return None
    pairs = []
    for token in tokens[_BYTES:]:
        # Apply BPE to the token's bytes with the merges before its own.
        own, parts = ranks[token], [token[index : index + 1] for index in range(len(token))]
        while len(parts) > 2:
            rank = min(ranks.get(left + right, own) for left, right in pairwise(parts))
            if rank >= own:
                break
            parts = _merged(parts, rank, ranks)
        if len(parts) != 2:
            return None
        pairs.append((parts[0], parts[1]))
    return pairs


def _merged(parts: list[bytes], rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Merge all pairs of one rank at once, from the left: a token may be a run of thousands of one character."""
    merged: list[bytes] = []
    rest = iter([*parts, b""])
    left = next(rest)
    for right in rest:
        if right and ranks.get(left + right) == rank:
            merged.append(left + right)
            left = next(rest)
        else:
            merged.append(left)
            left = right
    return merged


def _occurs(token: bytes, tokenizer: Tokenizer, texts: Iterable[str], times: int) -> bool:
    """Whether the text has the last merge at least `times` times. No later merge uses it, and no earlier merge was of a
    rarer pair, so all merges are then that frequent.
    """
    index, encoder = tokenizer.get_vocab()[written(token)], encoder_of(tokenizer)
    found = 0
    for text in _pieces(texts):
        if token in text.encode():
            found += encoder.encode_batch([text])[0].count(index)
            if found >= times:
                return True
    return False


def by_tokenizers(
    texts: Sequence[str],
    vocab_size: int,
    min_frequency: int,
    special: Sequence[str],
    *,
    split: str = SPLIT,
    progress: Progress = no_progress,
) -> Tokenizer:
    """Train with the Hugging Face trainer, which stops at `min_frequency` and accepts text of any size."""
    tokenizer = byte_level(models.BPE(), split)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_reporting(texts, progress), trainer, length=len(texts))
    return tokenizer


def _reporting(texts: Sequence[str], progress: Progress) -> Iterator[str]:
    for number, text in enumerate(texts, start=1):
        yield from _pieces([text])
        if number % _TEXTS_AT_ONCE == 0 or number == len(texts):
            progress(number, len(texts), "reading the training split, then merging")


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    # rustbpe's regular expressions have the limit of tiktoken's; splitting a very long text changes a count by one.
    for text in texts:
        for start in range(0, max(len(text), 1), LONGEST_FOR_TIKTOKEN):
            yield text[start : start + LONGEST_FOR_TIKTOKEN]
