"""Content ids and deterministic shards."""

import gzip
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.data.document import (
    Document,
    content_id,
    document_line,
    read_documents,
    read_shard,
    write_documents,
    write_lines,
)


def document(text: str) -> Document:
    return Document(text=text, id=content_id(text), metadata={"source": "local", "path": "a.txt"})


def test_only_equal_texts_have_equal_ids():
    assert content_id("caf\u00e9") != content_id("cafe\u0301")
    assert content_id("a") != content_id("b")
    assert len(content_id("")) == 32


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=12), st.integers(1, 5))
def test_documents_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, texts: list[str], per_shard: int):
    folder = tmp_path_factory.mktemp("shards")
    paths = write_documents(map(document, texts), folder, per_shard)
    assert list(read_documents(folder)) == [document(text) for text in texts]
    assert len(paths) == max(1, -(-len(texts) // per_shard))


def test_shards_are_byte_identical_wherever_they_are_written(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_documents([document("x"), document("y")], tmp_path / name, 512)
    first, second = ((tmp_path / name / "documents-0000.jsonl").read_bytes() for name in ("one", "two"))
    assert first == second


def test_compressed_shards_of_others_are_read_too(tmp_path: Path):
    write_documents([document("x"), document("y")], tmp_path, 1)
    first = tmp_path / "documents-0000.jsonl"
    (tmp_path / "documents-0000.jsonl.gz").write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    assert [each.text for each in read_documents(tmp_path)] == ["x", "y"]


def test_a_full_disk_names_the_shard_and_leaves_nothing_half(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"documents-0001.jsonl"):
            write_documents([document("x"), document("y" * 200_000)], tmp_path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["documents-0000.jsonl"]


def test_a_shard_that_fails_half_way_leaves_the_one_before_it(tmp_path: Path):
    path = tmp_path / "documents-0000.jsonl"
    write_lines([document_line(document("x"))], path)

    def broken() -> Iterator[bytes]:
        yield document_line(document("y"))
        raise RuntimeError("source is gone")

    with pytest.raises(RuntimeError):
        write_lines(broken(), path)
    assert [each.text for each in read_shard(path)] == ["x"]
    assert len(list(tmp_path.iterdir())) == 1


def test_damage_names_the_file_and_the_line(tmp_path: Path):
    write_documents([document("x"), document("y" * 10_000)], tmp_path, 512)
    plain = tmp_path / "documents-0000.jsonl"
    plain.write_bytes(plain.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"documents-0000.jsonl is damaged after line 1"):
        list(read_shard(plain))
    path = tmp_path / "documents-0001.jsonl.gz"
    path.write_bytes(gzip.compress(plain.read_bytes())[:-20])
    with pytest.raises(ValueError, match=r"documents-0001.jsonl.gz is damaged after line \d"):
        list(read_shard(path))
    path.write_bytes(gzip.compress(b'{"id": 1}\n'))
    with pytest.raises(ValueError, match="damaged after line 0"):
        list(read_shard(path))


def test_folder_without_shards_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no documents"):
        list(read_documents(tmp_path))
