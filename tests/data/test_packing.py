"""Token shards: every token comes back, across shard borders too, and no document is on two sides."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import PackConfig, TokenizerConfig
from data.document import read_documents
from data.packing import PackedTokens, PackReport, pack, split_of
from data.tokenizer import load_tokenizer, train_tokenizer

CONFIG = PackConfig(valid_fraction=0.15, test_fraction=0.2, tokens_per_shard=5000)


@pytest.fixture(scope="module")
def tokenizer(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TokenizerConfig(vocab_size=500), corpus, out, split=CONFIG)
    return out


@pytest.fixture(scope="module")
def packed(corpus: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PackReport]:
    out = tmp_path_factory.mktemp("packed")
    return out, pack(CONFIG, corpus, tokenizer, out)


def test_every_document_comes_back_in_order_on_one_side(corpus: Path, tokenizer: Path, packed: tuple[Path, PackReport]):
    decoder = load_tokenizer(tokenizer)
    for split in ("train", "valid", "test"):
        side = PackedTokens(packed[0], split)
        expected = [document.text for document in read_documents(corpus) if split_of(document.id, CONFIG) == split]
        documents = [side.document(index) for index in range(len(side.offsets) - 1)]
        assert [decoder.decode(ids[:-1].tolist(), skip_special_tokens=False) for ids in documents] == expected
        assert all(ids[-1] == side.eos_id and side.eos_id not in ids[:-1] for ids in documents)
        assert packed[1].splits[split].documents == len(expected)
        assert packed[1].splits[split].bytes == sum(len(text.encode()) for text in expected)


def test_shards_are_full_but_the_last_and_small_vocabularies_take_two_bytes(packed: tuple[Path, PackReport]):
    folder, report = packed
    sizes = [(folder / name).stat().st_size for name in report.splits["train"].shards]
    assert len(sizes) > 2
    assert set(sizes[:-1]) == {CONFIG.tokens_per_shard * 2}
    assert sum(sizes) == report.splits["train"].tokens * 2
    assert (report.dtype, report.vocab_size, report.eos_id) == ("uint16", 500, 0)
    assert json.loads((folder / "index.json").read_text()) == report.model_dump(exclude={"timings"})


def test_any_window_equals_the_window_of_the_whole(packed: tuple[Path, PackReport]):
    tokens = PackedTokens(packed[0], "train").tokens
    whole = tokens.read(0, len(tokens))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(tokens)), st.integers(0, 12_000))
    def windows(start: int, length: int) -> None:
        length = min(length, len(tokens) - start)
        assert np.array_equal(tokens.read(start, length), whole[start : start + length])

    windows()
    with pytest.raises(IndexError):
        tokens.read(len(tokens), 1)
    with pytest.raises(IndexError):
        tokens.read(-1, 1)


def test_packing_twice_is_byte_identical(
    corpus: Path, tokenizer: Path, packed: tuple[Path, PackReport], tmp_path: Path
):
    pack(CONFIG, corpus, tokenizer, tmp_path)
    for path in sorted(packed[0].iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_a_truncated_shard_is_refused(corpus: Path, tokenizer: Path, tmp_path: Path):
    report = pack(CONFIG, corpus, tokenizer, tmp_path)
    shard = tmp_path / report.splits["test"].shards[-1]
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(ValueError, match="pack again"):
        PackedTokens(tmp_path, "test")
    with pytest.raises(ValueError, match="run the pack step first"):
        PackedTokens(tmp_path / "nowhere", "test")


def test_an_empty_side_is_refused(corpus: Path, tokenizer: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no document falls into valid \(train \d+, valid 0, test \d+\)"):
        pack(PackConfig(valid_fraction=1e-9, test_fraction=0.2), corpus, tokenizer, tmp_path)


@given(st.text("0123456789abcdef", min_size=32, max_size=32))
def test_the_split_is_a_function_of_id_and_salt(identity: str):
    assert split_of(identity, CONFIG) == split_of(identity, PackConfig.model_validate(CONFIG.model_dump()))


def test_the_split_keeps_its_fractions_and_another_salt_is_another_split():
    ids = [f"{number:032x}" for number in range(20_000)]
    counts = Counter(split_of(identity, CONFIG) for identity in ids)
    # Five standard deviations of a binomial of 20,000.
    assert abs(counts["test"] / 20_000 - 0.2) < 5 * (0.2 * 0.8 / 20_000) ** 0.5
    assert abs(counts["valid"] / 20_000 - 0.15) < 5 * (0.15 * 0.85 / 20_000) ** 0.5
    other = CONFIG.model_copy(update={"split_salt": "other"})
    assert any(split_of(identity, CONFIG) != split_of(identity, other) for identity in ids[:100])
