"""Files and folders appear complete or not at all, and errors of the disk name the file."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sluice.data.deduplication.sketch
from sluice.core.failure import describe
from sluice.core.files import (
    atomic_write,
    copy_tree,
    create_private,
    holding_lock,
    lock_holder,
    naming,
    read_private,
    remove,
    stale_partials,
)
from sluice.data.config import RefineConfig
from sluice.data.deduplication.sketch import sketch, write_sketches
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.refining.tables import read_twins, write_twins

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("earlier", [None, "as it was"])
def test_a_file_that_fails_half_way_leaves_what_was_there(tmp_path: Path, earlier: str | None) -> None:
    path = tmp_path / "file"
    if earlier:
        path.write_text(earlier)
    with (
        pytest.raises(OSError, match=rf"No space left on device, on the file system /.* were left; .*: '{path}'"),
        atomic_write(path) as partial,
    ):
        partial.write_text("half")
        raise FULL
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == ({"file": earlier} if earlier else {})
    with atomic_write(path) as partial:
        partial.write_text("whole")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"file": "whole"}


def test_a_folder_takes_the_place_of_an_earlier_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for names in (["a", "b"], ["c"]):
        with atomic_write(path) as partial:
            partial.mkdir()
            for name in names:
                (partial / name).touch()
    assert [each.relative_to(tmp_path).as_posix() for each in sorted(tmp_path.rglob("*"))] == ["folder", "folder/c"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sluice.core.files import atomic_write
with atomic_write(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.process
def test_the_next_write_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "file.other"
    for each in (path, other):
        assert subprocess.run([sys.executable, "-c", KILLED, str(each)], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_write(path) as partial:
        partial.write_text("whole")
    left, written = sorted(tmp_path.iterdir())
    assert (written.name, written.read_text()) == ("file", "whole")
    assert left.name.startswith(".file.other."), "a partial write of another path is not this one's to remove"


def test_a_living_writer_keeps_its_partial_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as slow:
        slow.write_text("slow")
        os.utime(slow, (0, 0))
        with atomic_write(path) as fast:
            fast.write_text("fast")
        assert (slow.read_text(), path.read_text()) == ("slow", "fast")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "slow")]


def test_a_partial_write_of_another_machine_is_stale_after_a_day_without_a_change(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    theirs, foreign = tmp_path / ".folder.000000-1-000000", tmp_path / ".folder.backup"
    for each in (theirs, foreign):
        each.mkdir()
        (each / "file").touch()
        os.utime(each, (0, 0))
    assert stale_partials(path) == []
    os.utime(theirs / "file", (0, 0))
    assert stale_partials(path) == [theirs]
    assert stale_partials(tmp_path / "nowhere" / "folder") == []


def test_a_flushed_write_reaches_the_disk_before_its_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        flushed.append((kind, (tmp_path / "written").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(tmp_path / "written") as partial:
        partial.touch()
    assert not flushed
    (tmp_path / "written").unlink()
    with atomic_write(tmp_path / "written", fsync=True) as partial:
        partial.touch()
    assert flushed == [("file", False), ("folder", True)]
    (tmp_path / "written").unlink()
    flushed.clear()
    with atomic_write(tmp_path / "written", fsync=True) as partial:
        (partial / "below").mkdir(parents=True)
        (partial / "below" / "file").touch()
    assert sorted(flushed[:-1]) == [("file", False), ("folder", False), ("folder", False)]
    assert flushed[-1] == ("folder", True)


def test_an_error_that_names_its_file_keeps_the_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'nowhere'"), naming(tmp_path / "other"):
        Path("nowhere").read_bytes()
    with pytest.raises(ValueError, match="no matter of the disk"), naming(tmp_path):
        raise ValueError("no matter of the disk")


def test_removing_what_is_not_there_is_no_error_and_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("link", "nothing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_copied_tree_is_the_same_and_ends_at_its_first_error(tmp_path: Path) -> None:
    for name in ("b", "below/a", "below/c"):
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(name)
    copy_tree(tmp_path / "from", tmp_path / "to")
    assert {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*")} == {
        *("b", "below", "below/a", "below/c")
    }
    asked = []

    def full(source: Path, target: Path) -> None:
        asked.append(source.name)
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with pytest.raises(OSError, match=r"No space left on device: '.*/other/b'"):
        copy_tree(tmp_path / "from", tmp_path / "other", full)
    assert asked == ["b"]


def test_sketches_that_do_not_fit_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RefineConfig(max_piece_copies=1)
    sketches = [sketch(f"the words of document {number}", config) for number in range(3)]

    def full(folder: Path, name: str, rows: object) -> None:
        raise FULL

    with monkeypatch.context() as patched:
        patched.setattr(sluice.data.deduplication.sketch, "write_column", full)
        with pytest.raises(OSError, match=r"No space left on device, .*: '.*sketches-0003'"):
            write_sketches(tmp_path / "sketches-0003", sketches, config)
    assert not list(tmp_path.iterdir())
    write_sketches(tmp_path / "sketches-0003", sketches, config)
    assert len(SketchPart(tmp_path / "sketches-0003")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["sketches-0003"]


def test_rows_that_do_not_fit_leave_nothing_and_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(table: object, where: Path, **_: object) -> None:
        Path(where).write_bytes(b"PAR1")
        raise FULL

    with monkeypatch.context() as patched:
        patched.setattr("sluice.data.refining.tables.pq.write_table", full)
        with pytest.raises(OSError, match=r"pairs\.parquet"):
            write_twins([("a", "b", 0.9)], tmp_path / "pairs.parquet")
    assert not list(tmp_path.iterdir())
    write_twins([("a", "b", 0.9)], tmp_path / "pairs.parquet")
    assert read_twins(tmp_path / "pairs.parquet") == [("a", "b", float(np.float64(0.9)))]


def test_a_failure_of_the_system_is_one_line_without_its_class(tmp_path: Path) -> None:
    assert describe(PermissionError(errno.EACCES, "Permission denied", "notes.txt")) == "notes.txt: Permission denied"
    assert describe(OSError("the database is away")) == "OSError: the database is away"
    copied = OSError(errno.ENOSPC, "No space left on device", "from", None, str(tmp_path / "to"))
    assert describe(copied).startswith(f"{tmp_path}/to: No space left on device, on the file system /")


def test_a_private_file_of_another_user_names_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api_key"
    create_private(path, b"secret")
    assert read_private(path) == b"secret"

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    # root, which tests may be, can read everything
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=rf"api_key cannot be read, as it belongs to {path.owner()}: .*chown"):
        read_private(path)


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert lock_holder(path) is None
    with holding_lock(path, "process 1") as held:
        assert held and lock_holder(path) == "process 1"
        with holding_lock(path, "process 2") as second:
            assert not second
        assert lock_holder(path) == "process 1"
    assert lock_holder(path) is None
