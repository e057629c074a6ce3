"""Token shards: every token comes back, across shard borders too, and no document is on two sides."""
# ruff: noqa: F811

import hashlib
import io
import json
import shutil
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_fixtures import (  # noqa: F401
    CONFIG,
    SOURCES,
    VOCABULARY,
    made_documents,
    mixed_corpus,
    small_tokenizer,
    write_corpus,
)
from tokenizers import Tokenizer

from sluice.data.config import PackConfig
from sluice.data.document import read_documents
from sluice.data.packing import PackedTokens, PackReport, pack, split_of


@pytest.fixture(scope="module")
def packed(
    mixed_corpus: Path,
    small_tokenizer: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, PackReport]:
    out = tmp_path_factory.mktemp("packed")
    return out, pack(CONFIG, mixed_corpus, small_tokenizer, out)


def load(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def npy(values: list[int]) -> bytes:
    """Serialize int64 values as .npy."""
    saved = io.BytesIO()
    np.save(saved, np.array(values, dtype=np.int64))
    return saved.getvalue()


def reference_files(documents: Path, tokenizer: Path) -> dict[str, str]:
    """sha256 of each binary file, written the plainest way: a document's ids, the end token, cut into shards."""
    files: dict[str, bytes] = {}
    encoder = load(tokenizer)
    eos = encoder.token_to_id("<|endoftext|>")
    for split in ("train", "valid", "test"):
        ids, offsets, sources = [], [0], []
        for document in read_documents(documents):
            if split_of(document.id, CONFIG) == split:
                ids += [*encoder.encode(document.text).ids, eos]
                offsets.append(len(ids))
                sources.append(sorted(SOURCES).index(document.metadata["source"]))
        for number, start in enumerate(range(0, len(ids), CONFIG.tokens_per_shard)):
            shard = ids[start : start + CONFIG.tokens_per_shard]
            files[f"{split}-{number:04d}.bin"] = np.array(shard, dtype="<u2").tobytes()
        files[f"{split}.offsets.npy"] = npy(offsets)
        if split != "train":
            files[f"{split}.sources.npy"] = npy(sources)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_the_default_layout_is_the_plain_one_byte_for_byte(
    mixed_corpus: Path,
    small_tokenizer: Path,
    packed: tuple[Path, PackReport],
):
    written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in packed[0].iterdir()}
    del written["index.json"]
    assert written == reference_files(mixed_corpus, small_tokenizer)


def test_every_document_comes_back_in_order_on_one_side(
    mixed_corpus: Path,
    small_tokenizer: Path,
    packed: tuple[Path, PackReport],
):
    decoder = load(small_tokenizer)
    for split in ("train", "valid", "test"):
        side = PackedTokens(packed[0], split)
        expected = [each.text for each in read_documents(mixed_corpus) if split_of(each.id, CONFIG) == split]
        documents = [side.document(index) for index in range(side.documents)]
        assert [decoder.decode(ids[:-1].tolist(), skip_special_tokens=False) for ids in documents] == expected
        assert all(ids[-1] == side.eos_id and side.eos_id not in ids[:-1] for ids in documents)
        assert len(side.offsets) - 1 == packed[1].splits[split].documents == len(expected)
        assert packed[1].splits[split].bytes == sum(len(text.encode()) for text in expected)


def test_shards_are_full_but_the_last_and_small_vocabularies_take_two_bytes(packed: tuple[Path, PackReport]):
    folder, report = packed
    sizes = [(folder / name).stat().st_size for name in report.splits["train"].shards]
    assert len(sizes) > 2
    assert set(sizes[:-1]) == {CONFIG.tokens_per_shard * 2}
    assert sum(sizes) == report.splits["train"].tokens * 2
    assert (report.dtype, report.vocab_size, report.eos_id) == ("uint16", VOCABULARY, 0)
    assert json.loads((folder / "index.json").read_text()) == report.model_dump(exclude={"timings"})


def test_without_a_mix_each_source_is_used_whole(packed: tuple[Path, PackReport]):
    sources = packed[1].sources
    assert sorted(sources) == ["guide==1.0", "manual==2.1", "notes"]
    assert all(each.used == each.planned == each.available and each.epochs == 1 for each in sources.values())
    assert sum(each.used for each in sources.values()) == packed[1].splits["train"].tokens
    assert sum(each.documents for each in sources.values()) == packed[1].splits["train"].documents


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_held_out_split_has_the_source_of_every_token(
    mixed_corpus: Path, small_tokenizer: Path, packed: tuple[Path, PackReport], split: str
):
    side, encoder = PackedTokens(packed[0], split), load(small_tokenizer)
    names, expected = list(side.sources), []
    for document in read_documents(mixed_corpus):
        if split_of(document.id, CONFIG) == split:
            expected += [document.metadata["source"]] * (len(encoder.encode(document.text).ids) + 1)
    assert [names[number] for number in side.source_ids(0, len(side.tokens))] == expected
    assert names == sorted(set(expected)) and len(names) == len(SOURCES)
    assert {name: each.tokens for name, each in side.sources.items()} == Counter(expected)
    for field in ("documents", "tokens", "bytes"):
        whole = getattr(packed[1].splits[split], field)
        assert sum(getattr(each, field) for each in side.sources.values()) == whole


def test_a_folder_packed_before_sources_were_kept_is_read(packed: tuple[Path, PackReport], tmp_path: Path):
    shutil.copytree(packed[0], tmp_path / "old")
    index = json.loads((tmp_path / "old" / "index.json").read_text())
    for counts in index["splits"].values():
        del counts["sources"]
    (tmp_path / "old" / "index.json").write_text(json.dumps(index))
    (tmp_path / "old" / "valid.sources.npy").unlink()
    assert PackedTokens(tmp_path / "old", "valid").sources == {}


def test_sources_that_are_missing_or_of_other_documents_are_refused(packed: tuple[Path, PackReport], tmp_path: Path):
    shutil.copytree(packed[0], tmp_path / "torn")
    path = tmp_path / "torn" / "valid.sources.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(ValueError, match=r"valid\.sources\.npy numbers the sources of \d+ documents, .*: pack again"):
        PackedTokens(tmp_path / "torn", "valid")
    path.unlink()
    with pytest.raises(ValueError, match=r"valid\.sources\.npy does not exist, .*: pack again"):
        PackedTokens(tmp_path / "torn", "valid")


def test_any_window_equals_the_window_of_the_whole(packed: tuple[Path, PackReport]):
    side = PackedTokens(packed[0], "train")
    tokens = side.tokens
    whole = tokens.read(0, len(tokens))
    owners = np.repeat(np.arange(side.documents), np.diff(side.offsets))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(tokens)), st.integers(0, 12_000))
    def windows(start: int, length: int) -> None:
        length = min(length, len(tokens) - start)
        assert np.array_equal(tokens.read(start, length), whole[start : start + length])
        assert np.array_equal(side.document_ids(start, length), owners[start : start + length])

    windows()
    for read in (tokens.read, side.document_ids):
        with pytest.raises(IndexError):
            read(len(tokens), 1)
        with pytest.raises(IndexError):
            read(-1, 1)


def test_packing_twice_is_byte_identical(
    mixed_corpus: Path,
    small_tokenizer: Path,
    packed: tuple[Path, PackReport],
    tmp_path: Path,
):
    pack(CONFIG, mixed_corpus, small_tokenizer, tmp_path)
    for path in sorted(packed[0].iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_a_document_longer_than_a_batch_is_packed_as_any_other(
    small_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packed: tuple[Path, PackReport],
):
    # The package has a function of the same name as the module.
    monkeypatch.setattr(import_module("sluice.data.packing.pack"), "_CHARACTERS_AT_ONCE", 100)
    (tmp_path / "out").mkdir()
    seen = []
    refined = write_corpus(made_documents(), tmp_path / "refine")
    pack(CONFIG, refined, small_tokenizer, tmp_path / "out", progress=lambda done, total, note: seen.append(done))
    assert len(seen) > 100
    assert (tmp_path / "out" / "train-0000.bin").read_bytes() == (packed[0] / "train-0000.bin").read_bytes()


def test_an_index_of_before_layouts_is_read(packed: tuple[Path, PackReport], tmp_path: Path):
    for path in packed[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((tmp_path / "index.json").read_text())
    for key in ("layout", "row_tokens", "costs", "sources"):
        del index[key]
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert len(PackedTokens(tmp_path, "train").tokens) == packed[1].splits["train"].tokens


def test_a_truncated_shard_is_refused(mixed_corpus: Path, small_tokenizer: Path, tmp_path: Path):
    report = pack(CONFIG, mixed_corpus, small_tokenizer, tmp_path)
    shard = tmp_path / report.splits["test"].shards[-1]
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(ValueError, match="pack again"):
        PackedTokens(tmp_path, "test")
    with pytest.raises(ValueError, match="run the pack step first"):
        PackedTokens(tmp_path / "nowhere", "test")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["train-0000.bin", "valid-0000.bin", "train.offsets.npy", "index.json"])
def test_a_full_disk_is_named(name: str, mixed_corpus: Path, small_tokenizer: Path, tmp_path: Path):
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"{name}'$"):
        pack(CONFIG, mixed_corpus, small_tokenizer, tmp_path)


def test_an_empty_side_is_refused(mixed_corpus: Path, small_tokenizer: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no document falls into valid \(train \d+, valid 0, test \d+\)"):
        pack(PackConfig(valid_fraction=1e-9, test_fraction=0.2), mixed_corpus, small_tokenizer, tmp_path)


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
