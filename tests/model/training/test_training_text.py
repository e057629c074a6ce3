"""A plain text as packed tokens: nothing is lost, the sides are its beginning and end, other settings pack again."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sluice.data.config import TokenizerConfig
from sluice.data.packing import PackedTokens
from sluice.data.tokenization import END_OF_TEXT
from sluice.model.training.batches.settings import TextConfig
from sluice.model.training.batches.text import Packed, pack_text

WORDS = "The quick brown fox jumps over the lazy dog; and then, of course,\r\n\tit sleeps. Ünïcödé 日本 🎉 " * 40


def packed_of(folder: Path, text: str, **changes: Any) -> Packed:
    (folder / "text.txt").write_bytes(text.encode())
    return pack_text(folder / "text.txt", folder, TextConfig(**changes), TokenizerConfig(vocab_size=300))


def decoded(packed: Packed, side: Any) -> str:
    tokenizer = Tokenizer.from_file(str(packed.tokenizer / "tokenizer.json"))
    tokens = PackedTokens(packed.tokens, side).tokens
    return str(tokenizer.decode(tokens.read(0, len(tokens)).tolist(), skip_special_tokens=False))


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
def test_the_sides_are_the_beginning_and_the_end(tmp_path: Path, tokenizer: str) -> None:
    packed = packed_of(tmp_path, WORDS, tokenizer=tokenizer)
    cut = len(WORDS) - round(len(WORDS) * 0.1)
    assert decoded(packed, "train") == WORDS[:cut]
    assert decoded(packed, "valid") == WORDS[cut:] != ""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=20, max_size=80), tokenizer=st.sampled_from(["character", "byte"]))
def test_any_text_comes_back(tmp_path: Path, text: str, tokenizer: str) -> None:
    packed = packed_of(tmp_path, text, tokenizer=tokenizer)
    assert decoded(packed, "train") + decoded(packed, "valid") == text


def test_text_that_looks_like_the_end_token_is_characters(tmp_path: Path) -> None:
    text = f"a {END_OF_TEXT} b" * 30
    packed = packed_of(tmp_path, text, tokenizer="character")
    train = PackedTokens(packed.tokens, "train")
    assert train.eos_id not in train.tokens.read(0, len(train.tokens))
    assert len(train.tokens) == len(text) - round(len(text) * 0.1)


def test_a_packed_text_is_kept_and_another_setting_packs_again(tmp_path: Path) -> None:
    packed = packed_of(tmp_path, WORDS, tokenizer="byte")
    first = (packed.tokens / "index.json").stat().st_mtime_ns
    packed_of(tmp_path, WORDS, tokenizer="byte")
    assert (packed.tokens / "index.json").stat().st_mtime_ns == first
    packed_of(tmp_path, WORDS, tokenizer="byte", valid_fraction=0.2)
    assert (packed.tokens / "index.json").stat().st_mtime_ns != first


def test_what_cannot_be_packed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.txt is no file"):
        pack_text(tmp_path / "missing.txt", tmp_path, TextConfig(), TokenizerConfig())
    (tmp_path / "text.txt").write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match="no UTF-8 text: invalid start byte at byte 3"):
        pack_text(tmp_path / "text.txt", tmp_path, TextConfig(), TokenizerConfig())
    with pytest.raises(ValueError, match="too few"):
        packed_of(tmp_path, "ab", tokenizer="byte")
    with pytest.raises(ValueError, match="vocab_size 300 is more than the text fills"):
        packed_of(tmp_path, "abcdefghij" * 3, tokenizer="bpe")
