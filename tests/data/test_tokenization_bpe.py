"""BPE training follows the paper, with either library."""
# ruff: noqa: F811

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenization_fixtures import library  # noqa: F401
from tokenizers import Regex, pre_tokenizers

from sluice.data.document import read_documents
from sluice.data.tokenization import bpe
from sluice.data.tokenization.bpe import merged_tokens, merges_of, train_bpe
from sluice.data.tokenization.bytelevel import SPLIT, written
from sluice.data.tokenization.encoder import LONGEST_FOR_TIKTOKEN
from sluice.data.tokenization.special import SPECIAL_TOKENS

TEXTS = st.lists(st.text(alphabet="ab c\né", max_size=60), min_size=1, max_size=5)


def by_the_paper(texts: list[str], merges: int) -> list[bytes]:
    """Merge the commonest pair, of equal ones that with the lower ids, over the pieces of the split."""
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    words = Counter(tuple(piece.encode()) for text in texts for piece, _ in split.pre_tokenize_str(text))
    tokens = [bytes([byte]) for byte in range(256)]
    for _ in range(merges):
        pairs: Counter[tuple[int, int]] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        tokens.append(tokens[best[0]] + tokens[best[1]])
        merged: Counter[tuple[int, ...]] = Counter()
        for word, count in words.items():
            merged[merge(word, best, len(tokens) - 1)] += count
        words = merged
    return tokens


def merge(word: tuple[int, ...], pair: tuple[int, int], new: int) -> tuple[int, ...]:
    out: list[int] = []
    index = 0
    while index < len(word):
        if word[index : index + 2] == pair:
            out.append(new)
            index += 2
        else:
            out.append(word[index])
            index += 1
    return tuple(out)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, merges=st.integers(0, 30))
def test_merges_are_those_of_the_paper(texts: list[str], merges: int):
    assert merged_tokens(texts, 256 + merges, SPLIT) == by_the_paper(texts, merges)


@settings(max_examples=50, deadline=None)
@given(texts=TEXTS, data=st.data())
def test_order_of_texts_does_not_matter(texts: list[str], data: st.DataObject):
    assert merged_tokens(data.draw(st.permutations(texts)), 280, SPLIT) == merged_tokens(texts, 280, SPLIT)


def test_the_pair_of_each_token_is_recovered():
    tokens = [*(bytes([byte]) for byte in range(256)), b"ab", b"abc", b"abab"]
    assert merges_of(tokens) == [(b"a", b"b"), (b"ab", b"c"), (b"ab", b"ab")]
    assert merges_of([*tokens, b"ab"]) is None
    assert merges_of([*tokens, b"xyz"]) is None


def test_rustbpe_is_taken_where_it_keeps_the_least_frequency():
    texts = ["ab ab ab ab", "cd cd"]
    # Pairs: ab 4 times and then its form with a space 3 times; cd twice.
    tokenizer, trainer = train_bpe(texts, 4 + 256 + 2, 3, SPECIAL_TOKENS)
    assert (trainer, tokenizer.get_vocab_size()) == ("rustbpe", 262)
    tokenizer, trainer = train_bpe(texts, 4 + 256 + 3, 3, SPECIAL_TOKENS)
    assert (trainer, tokenizer.get_vocab_size()) == ("tokenizers", 262)
    tokenizer, trainer = train_bpe(texts, 4 + 256 + 3, 2, SPECIAL_TOKENS)
    assert (trainer, tokenizer.get_vocab_size()) == ("rustbpe", 263)


def test_text_beyond_the_counters_of_rustbpe_is_trained_on_by_the_other_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bpe, "_MOST_BYTES_FOR_RUSTBPE", 10)
    assert train_bpe(["ab ab ab ab"], 261, 2, SPECIAL_TOKENS)[1] == "tokenizers"


def test_both_libraries_fit_text_alike(library: Path):
    texts = [document.text for document in read_documents(library)]
    ours, trainer = train_bpe(texts, 2000, 2, SPECIAL_TOKENS)
    theirs = bpe.by_tokenizers(texts, 2000, 2, SPECIAL_TOKENS)
    assert trainer == "rustbpe"
    lengths = [sum(len(each.ids) for each in one.encode_batch_fast(texts)) for one in (ours, theirs)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.005)
    assert {written(bytes([byte])) for byte in range(256)} <= set(ours.get_vocab()) & set(theirs.get_vocab())


def test_a_run_of_white_space_that_exhausts_regular_expressions_is_cut():
    text = " " * (4 * LONGEST_FOR_TIKTOKEN) + "the the"
    assert train_bpe([text], 270, 2, SPECIAL_TOKENS)[0].get_vocab_size() == 270
