"""Words, shingles and signatures: what is equal is equal, and the share of equal hashes is the Jaccard similarity."""

import numpy as np
import pytest
from deduplication_fixtures import edited, passage
from hypothesis import given
from hypothesis import strategies as st
from script_fixtures import ARTICLES, retouched

from sluice.data.config import RefineConfig
from sluice.data.deduplication.minhash import band_keys, signature
from sluice.data.deduplication.shingles import jaccard, shingles
from sluice.data.deduplication.words import hash_of, word_hashes, word_spans, words


def of(text: str, ngram: int) -> np.ndarray:
    return shingles(word_hashes(text), ngram)


def test_a_hash_is_the_same_in_every_process():
    assert hash_of("word") == 10776770685243991114
    assert word_hashes("Word, word!").tolist() == [hash_of("word")] * 2


@given(st.text(alphabet="aBß İΣςé_9-.\n\t漢字", max_size=60))
def test_spans_name_the_words_of_the_hashes(text: str):
    spans = word_spans(text)
    assert len(spans) == len(word_hashes(text)) == len(words(text))
    assert spans == sorted(spans)
    for (start, end), word in zip(spans, words(text), strict=True):
        assert word in text[start:end].lower() or "σ" in word or "ς" in word  # The final sigma knows its neighbours.


def test_shingles_are_distinct_ngrams_and_their_order_counts():
    assert len(of("a b c d e f", 5)) == 2
    assert len(of("a b c d e a b c d e", 5)) == 5
    assert not np.intersect1d(of("a b c d e", 5), of("e d c b a", 5)).size
    assert np.array_equal(of("A, b. C d e!", 5), of("a b c d e", 5))
    assert len(of("two words", 5)) == 1
    assert len(of("", 5)) == 0


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_jaccard_is_exact(one: list[int], other: list[int]):
    first, second = (np.unique(np.array(each, np.uint64)) for each in (one, other))
    union = len(set(one) | set(other))
    assert jaccard(first, second) == (len(set(one) & set(other)) / union if union else 1.0)


def test_the_share_of_equal_hashes_estimates_the_jaccard_similarity():
    config = RefineConfig(minhash_buckets=64, minhash_hashes_per_bucket=16)
    for edits in (20, 100, 200, 400):
        text = passage(edits, 4000)
        first, second = of(" ".join(text), 5), of(edited(text, edits, 1), 5)
        agreement = float((signature(first, config) == signature(second, config)).mean())
        assert abs(agreement - jaccard(first, second)) < 0.05  # 1024 hashes: standard error below 0.016


def test_a_signature_is_the_minimum_over_all_shingles_however_many():
    config = RefineConfig()
    values = of(" ".join(passage(1, 3000)), 5)
    halves = np.minimum(signature(values[:1000], config), signature(values[1000:], config))
    assert np.array_equal(signature(values, config), halves)
    assert signature(values[:0], config).shape == (14, 8)
    assert (signature(values[:0], config) == 2**32 - 1).all()


def test_equal_bands_have_equal_keys_and_others_have_not():
    signatures = np.arange(3 * 2 * 2, dtype=np.uint32).reshape(3, 2, 2)
    signatures[2, 1] = signatures[0, 1]
    keys = band_keys(signatures)
    assert keys[0, 1] == keys[2, 1]
    assert len(np.unique(keys)) == 5


@pytest.mark.parametrize("language", ["zh", "ja", "th"])
@pytest.mark.parametrize("edits", [1, 2, 6])
def test_in_a_script_without_spaces_the_similarity_is_that_of_characters(language: str, edits: int):
    text = ARTICLES[language]
    copy = retouched(text, edits, edits)
    truth = _character_jaccard(text, copy, 5)
    assert 0.5 < truth < 1
    # Thai signs are no letters of their own here, so a changed letter touches fewer or more of the n-grams.
    assert abs(jaccard(of(text, 5), of(copy, 5)) - truth) < (0.05 if language == "th" else 1e-9)


def _character_jaccard(one: str, other: str, ngram: int) -> float:
    first, second = (
        {letters[start : start + ngram] for start in range(len(letters) - ngram + 1)}
        for letters in ("".join(filter(str.isalnum, text)) for text in (one, other))
    )
    return len(first & second) / len(first | second)
