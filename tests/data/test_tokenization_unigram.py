"""Unigram: sums over all ways to write a word, and the tokens that EM keeps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.tokenization.lattice import Lattice
from sluice.data.tokenization.special import SPECIAL_TOKENS
from sluice.data.tokenization.unigram import count_words, train_unigram

TOKENS = {token: index for index, token in enumerate([b"a", b"b", b"ab", b"ba", b"aba", b"bb"])}
WORDS = st.lists(st.text("ab", min_size=1, max_size=7).map(str.encode), min_size=1, max_size=6, unique=True)
SCORES = st.lists(st.floats(-5, 0), min_size=len(TOKENS), max_size=len(TOKENS)).map(np.array)


def ways(word: bytes) -> list[tuple[int, ...]]:
    """Every way to write a word."""
    found = []
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        bounds = [0, *(at + 1 for at, cut in enumerate(cuts) if cut), len(word)]
        parts = [word[a:b] for a, b in itertools.pairwise(bounds)]
        if all(part in TOKENS for part in parts):
            found.append(tuple(TOKENS[part] for part in parts))
    return found


@settings(max_examples=100, deadline=None)
@given(words=WORDS, scores=SCORES)
def test_expected_counts_are_the_sums_over_all_ways(words: list[bytes], scores: np.ndarray):
    weights = np.arange(1.0, len(words) + 1)
    expected = np.zeros(len(TOKENS))
    for word, weight in zip(words, weights, strict=True):
        chances = [math.exp(sum(scores[index] for index in way)) for way in ways(word)]
        for way, chance in zip(ways(word), chances, strict=True):
            for index in way:
                expected[index] += weight * chance / sum(chances)
    np.testing.assert_allclose(Lattice(words, TOKENS).expected_counts(scores, weights), expected, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(words=WORDS, scores=SCORES)
def test_best_is_the_likeliest_way(words: list[bytes], scores: np.ndarray):
    expected = [max(sum(scores[index] for index in way) for way in ways(word)) for word in words]
    np.testing.assert_allclose(Lattice(words, TOKENS).best(scores), expected)


def test_a_token_is_not_its_own_substitute():
    scores = np.full(len(TOKENS), -1.0)
    inside = Lattice(list(TOKENS), TOKENS, whole=False)
    assert inside.best(scores).tolist() == [-math.inf, -math.inf, -2, -2, -2, -2]
    inside.keep(np.array([True, True, False, False, True, True]))
    assert inside.best(scores)[4] == -3


def test_words_are_counted_pieces():
    words, counts = count_words(["the cat the", "x" * 70])
    assert words == sorted(words)
    assert dict(zip(words, counts, strict=True)) == {b"the": 1, b" cat": 1, b" the": 1, b"x" * 32: 2, b"x" * 6: 1}


def test_the_tokens_that_serve_best_are_kept():
    texts = ["walking talking walked talked walks talks " * 50, "rarely"]
    tokenizer, _ = train_unigram(texts, 4 + 256 + 6, 2, SPECIAL_TOKENS)
    assert tokenizer.get_vocab_size() == 266
    assert len(tokenizer.encode(" walked talking").tokens) < 8
    assert "rarely" not in tokenizer.get_vocab()
    assert list(tokenizer.get_vocab().values()).count(0) == 1


@pytest.mark.parametrize("least", [2, 60])
def test_no_token_is_rarer_than_the_least_frequency(least: int):
    texts = ["ab " * 59 + "cd " * 200]
    tokenizer, _ = train_unigram(texts, 4 + 256 + 8, least, SPECIAL_TOKENS)
    held = {token for token in tokenizer.get_vocab() if "ab" in token}
    assert bool(held) == (least == 2)
