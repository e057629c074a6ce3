"""Blocks of datatrove 0.10 as they come, with words that need no spaCy model."""

import re
import tempfile
from collections.abc import Sequence
from typing import Any

import xxhash
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from datatrove.utils.text import split_into_parts
from datatrove.utils.word_tokenizers import WordTokenizer

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.!?]+\s+")


class SplitWords(WordTokenizer):
    """Words between white space, the cheapest there are; a sentence ends with its punctuation."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[start:end] for start, end in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        ends = [*(match.end() for match in _SENTENCE_END.finditer(text) if match.end() < len(text)), len(text)]
        return list(zip([0, *ends], ends, strict=False))


class RegexWords(SplitWords):
    """Words as our own deduplication knows them."""

    def word_tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text)


def filter_chain(texts: Sequence[str]) -> int:
    """How many pass Gopher's repetition and quality, C4's and FineWeb's filters; what one drops the next never sees."""
    split_into_parts.cache_clear()
    words: Any = SplitWords()
    stream: Any = (Document(text=text, id=str(number)) for number, text in enumerate(texts))
    for block in (
        GopherRepetitionFilter(language=words),
        GopherQualityFilter(language=words),
        C4QualityFilter(language=words),
        FineWebQualityFilter(language=words),
    ):
        stream = block(stream)
    return sum(1 for _ in stream)


def signatures(texts: Sequence[str]) -> list[list[list[int]]]:
    """The 14 bands of 8 hashes of word 5-grams of each text, as the first MinHash step computes them.

    A text of fewer than five words has none.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
        words: Any = RegexWords()
        block: Any = MinhashDedupSignature(folder, config, language=words)
        # Its own call hands text to xxhash, which has taken bytes alone since version 4.
        block._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
        shingles = (block.get_shingles(text) for text in texts)
        return [block.get_signature(found) if len(found) else [] for found in shingles]
