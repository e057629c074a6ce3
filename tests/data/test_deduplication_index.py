"""Documents of earlier runs are not kept again; adding is atomic; a repeated run has the same outcome."""

import errno
import fcntl
from pathlib import Path

import numpy as np
import pytest
from deduplication_fixtures import CONFIG, edited, passage, write_parts

from sluice.data.config import RefineConfig
from sluice.data.deduplication.index import DuplicateIndex
from sluice.data.deduplication.near import Duplicate
from sluice.data.document import content_id

FIRST, SECOND = "aa", "bb"


def add(index: DuplicateIndex, texts: list[str], folder: Path, run: str, per_part: int = 5) -> bool:
    parts = write_parts(texts, folder / run, per_part=per_part)
    return index.add(parts, [content_id(text) for text in texts], np.ones(len(texts), bool), run)


def duplicates(index: DuplicateIndex, texts: list[str], folder: Path, run: str) -> list[Duplicate]:
    parts = write_parts(texts, folder / "asked", per_part=2)
    ids = [content_id(text) for text in texts]
    return index.duplicates(parts, ids, np.ones(len(ids), bool), CONFIG.min_jaccard, run)


def test_exact_and_near_duplicates_of_an_earlier_run_are_found(tmp_path: Path):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    kept = [" ".join(passage(seed)) for seed in range(6)]
    assert duplicates(index, kept, tmp_path, SECOND) == []
    assert add(index, kept, tmp_path, FIRST)
    texts = [kept[3], edited(passage(1), 3, 1), " ".join(passage(77))]
    found = {each.id: each for each in duplicates(index, texts, tmp_path, SECOND)}
    assert found[content_id(texts[0])] == Duplicate(content_id(texts[0]), content_id(texts[0]), 1.0)
    near = found[content_id(texts[1])]
    assert near.duplicate_of == content_id(kept[1])
    assert 0.8 < near.jaccard < 1
    assert len(found) == 2


def test_a_run_is_no_duplicate_of_itself_nor_of_later_ones(tmp_path: Path):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    texts = [" ".join(passage(seed)) for seed in range(4)]
    add(index, texts, tmp_path, FIRST)
    add(index, [" ".join(passage(9)), edited(passage(2), 3, 1)], tmp_path, SECOND)
    assert duplicates(index, texts, tmp_path, FIRST) == []
    assert len(duplicates(index, texts, tmp_path, SECOND)) == 4
    assert len(duplicates(index, texts, tmp_path, "cc")) == 4


def test_a_folder_of_something_else_is_no_index(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".lock").touch()
    (tmp_path / "killed" / ".index.json.123").touch()
    (tmp_path / "empty").mkdir()
    for name in ("empty", "killed", "new"):
        assert add(DuplicateIndex.open(tmp_path / name, CONFIG), [" ".join(passage(1))], tmp_path / f"of {name}", FIRST)
        assert DuplicateIndex.open(tmp_path / name, CONFIG).runs()
    for name, says in (("full", "holds something"), ("full/thesis.txt", "is a file"), ("full/thesis.txt/x", "below")):
        with pytest.raises(ValueError, match=f"{says}.*: name an empty or a new folder for the index"):
            DuplicateIndex.open(tmp_path / name, CONFIG)


def test_adding_a_run_twice_changes_nothing(tmp_path: Path):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    texts = [" ".join(passage(seed)) for seed in range(3)]
    assert add(index, texts, tmp_path, FIRST)
    before = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*.npy")}
    assert not add(index, texts, tmp_path, FIRST)
    assert {path: path.read_bytes() for path in (tmp_path / "index").rglob("*.npy")} == before


def test_a_run_that_is_repeated_and_keeps_other_documents_has_its_entries_replaced(tmp_path: Path):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    texts = [" ".join(passage(seed)) for seed in range(3)]
    assert add(index, texts, tmp_path / "a", FIRST)
    assert add(index, texts[:2], tmp_path / "b", FIRST)
    (run,) = index.runs()
    assert len(np.load(run / "ids.npy")) == 2


def test_the_bytes_of_an_entry_do_not_depend_on_order_or_parts(tmp_path: Path):
    texts = [" ".join(passage(seed, 40 + seed)) for seed in range(7)]
    contents = []
    for name, ordered, per_part in (("one", texts, 7), ("other", texts[::-1], 2)):
        index = DuplicateIndex.open(tmp_path / name / "index", CONFIG)
        add(index, ordered, tmp_path / name, FIRST, per_part)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name / "index").rglob("*.npy")})
    assert contents[0] == contents[1]


def test_what_an_interrupted_run_left_is_not_there_and_not_in_the_way(tmp_path: Path):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    leftover = tmp_path / "index" / f".000000-{FIRST}.4711"
    leftover.mkdir(parents=True)
    (leftover / "ids.npy").write_bytes(b"half")
    assert index.runs() == []
    assert add(index, [" ".join(passage(1))], tmp_path, FIRST)
    assert [path.name for path in index.runs()] == [f"000000-{FIRST}"]
    assert {path.name for path in index.folder.iterdir()} == {".lock", "index.json", f"000000-{FIRST}"}


def test_an_entry_that_does_not_fit_leaves_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    assert add(index, [" ".join(passage(1))], tmp_path, FIRST)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path: path.read_bytes() for path in index.folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr("sluice.data.deduplication.index.write_column", full)
        with pytest.raises(OSError, match=f"No space left on device, .*: '.*000000-{FIRST}'"):
            add(index, [" ".join(passage(2))], tmp_path / "other", FIRST)
    assert {path: path.read_bytes() for path in index.folder.rglob("*") if path.is_file()} == before


def test_what_was_not_kept_is_not_added(tmp_path: Path):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    texts = [" ".join(passage(seed)) for seed in range(3)]
    parts = write_parts(texts, tmp_path / "parts")
    index.add(parts, [content_id(text) for text in texts], np.array([True, False, False]), FIRST)
    assert [each.id for each in duplicates(index, texts, tmp_path, SECOND)] == [content_id(texts[0])]
    assert index.add(parts, [content_id(text) for text in texts], np.zeros(3, bool), "00")
    assert len(duplicates(index, texts, tmp_path, SECOND)) == 1


def test_other_settings_are_refused(tmp_path: Path):
    add(DuplicateIndex.open(tmp_path / "index", CONFIG), [" ".join(passage(1))], tmp_path, FIRST)
    with pytest.raises(ValueError, match=r"minhash_ngram.*same values or use another folder"):
        DuplicateIndex.open(tmp_path / "index", RefineConfig(minhash_ngram=4))
    (tmp_path / "index" / "index.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        DuplicateIndex.open(tmp_path / "index", CONFIG)


def test_two_runs_do_not_add_at_once(tmp_path: Path):
    index = DuplicateIndex.open(tmp_path / "index", CONFIG)
    index.folder.mkdir()
    with (index.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is adding"):
            add(index, [" ".join(passage(1))], tmp_path, FIRST)
    with pytest.raises(ValueError, match="hex"):
        add(index, [" ".join(passage(1))], tmp_path, "not hex")
