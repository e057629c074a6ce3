"""Encoding: the ids of tokenizer.json, whichever library gives them."""
# ruff: noqa: F811

from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenization_fixtures import library, train  # noqa: F401
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from sluice.data.document import read_documents
from sluice.data.tokenization.bpe import by_tokenizers, train_bpe
from sluice.data.tokenization.bytelevel import SPLIT, byte_level, character_of_byte
from sluice.data.tokenization.encoder import (
    LONGEST_FOR_TIKTOKEN,
    TextEncoder,
    Tokenizers,
    encoder_of,
    load_encoder,
    ranks_of,
)
from sluice.data.tokenization.special import END_OF_TEXT, SPECIAL_TOKENS

LOOK_ALIKES = (
    "<|",
    "|>",
    "endoftext",
    *SPECIAL_TOKENS,
    "'LL",
    "'ſ",
    "  ",
    "\r\n",
    "\u3000",
    "12345",
    "e\u0301",
    "👩‍👩‍👧",
)
TEXTS = st.lists(st.one_of(st.text(), st.sampled_from(LOOK_ALIKES), st.sampled_from(("the ", "def ", "aa")))).map(
    "".join
)


@pytest.fixture(scope="module", params=["rustbpe", "tokenizers"])
def tokenizer(request: pytest.FixtureRequest, library: Path) -> Tokenizer:
    texts = [document.text for document in read_documents(library)]
    if request.param == "tokenizers":
        found = by_tokenizers(texts, 2000, 2, SPECIAL_TOKENS)
    else:
        found, trainer = train_bpe(texts, 2000, 2, SPECIAL_TOKENS)
        assert trainer == "rustbpe"
    found.encode_special_tokens = True
    return found


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> TextEncoder:
    found = encoder_of(tokenizer)
    assert found.name == "tiktoken"
    return found


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_both_libraries_give_the_same_ids(tokenizer: Tokenizer, encoder: TextEncoder, texts: list[str]):
    assert encoder.encode_batch(texts) == Tokenizers(tokenizer).encode_batch(texts)


def test_both_libraries_give_the_same_ids_for_real_text(tokenizer: Tokenizer, encoder: TextEncoder, library: Path):
    texts = [document.text for document in read_documents(library)]
    assert encoder.encode_batch(texts) == Tokenizers(tokenizer).encode_batch(texts)


@pytest.mark.parametrize("text", [" " * 300_000 + "a", "\n" * 300_000, "x" * LONGEST_FOR_TIKTOKEN, "=" * 10_000])
def test_long_runs_are_encoded_alike(tokenizer: Tokenizer, encoder: TextEncoder, text: str):
    assert encoder.encode_batch(["a", text, "b"]) == Tokenizers(tokenizer).encode_batch(["a", text, "b"])


@pytest.mark.parametrize("blank", [" ", "\n", " \n", "\u3000", "\u3000\r"])
def test_the_longest_run_for_tiktoken_does_not_exhaust_it(encoder: TextEncoder, blank: str):
    text = (blank * LONGEST_FOR_TIKTOKEN)[: LONGEST_FOR_TIKTOKEN - 1] + "a"
    assert encoder.encode_batch([text])[0]


@pytest.mark.parametrize("kind", [r"\p{L}", r"\p{N}", r"\s", r"(?i:[strevmld])"])
def test_both_regular_expressions_know_the_same_characters(kind: str):
    """The split is made of these classes, so that this and the sample say that both libraries split alike."""
    codes = (*range(0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE0200))
    characters = "".join(map(chr, codes))
    ours = pre_tokenizers.Split(Regex(f"(?:{kind})+"), behavior="removed", invert=True)
    ranks = {bytes([byte]): byte for byte in range(256)}
    theirs = tiktoken.Encoding("kind", pat_str=f"(?:{kind})+", mergeable_ranks=ranks, special_tokens={})
    found = bytes(theirs.encode_ordinary(characters)).decode()
    assert "".join(piece for piece, _ in ours.pre_tokenize_str(characters)) == found


def test_text_that_is_not_unicode_is_refused(tokenizer: Tokenizer, encoder: TextEncoder):
    for each in (encoder, Tokenizers(tokenizer)):
        with pytest.raises(
            ValueError, match="text 1 of the batch is not Unicode: surrogates not allowed at character 2"
        ):
            each.encode_batch(["fine", "ab\ud800"])


def test_a_folder_has_what_pack_needs(library: Path, tmp_path: Path):
    train(library, tmp_path / "out")
    encoder = load_encoder(tmp_path / "out")
    assert (encoder.name, encoder.vocab_size, encoder.end_of_text) == ("tiktoken", 600, 0)
    assert encoder.encode_batch([]) == []
    assert encoder.encode_batch([""]) == [[]]


def test_a_tokenizer_without_an_end_of_text_is_refused():
    with pytest.raises(ValueError, match=r"has no <\|endoftext\|> to end a document with"):
        encoder_of(bpe([]))


def bpe(merges: list[tuple[str, str]], **extras: Any) -> Tokenizer:
    names = [*sorted(character_of_byte().values()), *dict.fromkeys(left + right for left, right in merges)]
    return byte_level(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=merges, **extras))


def test_merges_that_both_libraries_read_alike_are_ranks():
    ranks = ranks_of(bpe([("a", "b"), ("ab", "c")]))
    assert ranks is not None
    assert (len(ranks), ranks[b"ab"], ranks[b"abc"]) == (258, 256, 257)


@pytest.mark.parametrize(
    "merges",
    [
        [("a", "b"), ("b", "c"), ("a", "bc")],  # abc is never made: ab is merged first
        [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")],  # abc is made in two ways
    ],
)
def test_merges_that_tiktoken_would_read_otherwise_are_not(merges: list[tuple[str, str]]):
    assert ranks_of(bpe(merges)) is None


def test_ids_that_do_not_grow_along_the_merges_are_not():
    names = [*sorted(character_of_byte().values()), "bc", "ab"]
    model = models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[("a", "b"), ("b", "c")])
    assert ranks_of(byte_level(model)) is None


def test_a_vocabulary_without_every_byte_is_not():
    assert ranks_of(byte_level(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))) is None


@pytest.mark.parametrize("extras", [{"dropout": 0.1}, {"ignore_merges": True}, {"continuing_subword_prefix": "##"}])
def test_bpe_with_extras_is_not(extras: dict[str, Any]):
    merges = [] if "continuing_subword_prefix" in extras else [("a", "b")]
    assert ranks_of(bpe(merges, **extras)) is None


def test_another_split_or_normalizer_or_an_added_word_is_not():
    for change in ("split", "normalizer", "word"):
        tokenizer = bpe([("a", "b")])
        if change == "split":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        elif change == "normalizer":
            tokenizer.normalizer = normalizers.Lowercase()
        else:
            tokenizer.add_tokens([AddedToken("word", special=False)])
        assert ranks_of(tokenizer) is None


def test_every_id_has_a_row_where_the_ids_have_gaps():
    names = {name: 2 * index for index, name in enumerate(sorted(character_of_byte().values()))}
    tokenizer = byte_level(models.BPE(vocab=names, merges=[]))
    tokenizer.add_special_tokens([END_OF_TEXT])
    assert encoder_of(tokenizer).vocab_size == 1 + max(tokenizer.get_vocab().values()) > tokenizer.get_vocab_size()


def test_the_split_leaves_no_character_out():
    whole = pre_tokenizers.Split(Regex(SPLIT), behavior="removed")
    assert whole.pre_tokenize_str("any text, 12 of\n it's \u0000 \u200b") == []
