"""Directories and globs: order, hidden files, links, and files that go while they are read."""

import os
from pathlib import Path

import pytest

from sluice.data.config import IngestConfig, Source
from sluice.data.document import read_documents
from sluice.data.sources import files
from sluice.data.sources.files import FoundFile, find
from sluice.data.sources.globs import Choice
from sluice.data.sources.ingest import ingest
from sluice.data.sources.location import LocalFiles, parse
from sluice.data.sources.origin import Origin


def tree(top: Path, *names: str) -> Path:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


def listed(location: LocalFiles, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    found = find(location, Choice(include, exclude), Origin("local"))
    return [each.shown if isinstance(each, FoundFile) else f"{each.path}: {each.reason}" for each in found]


def at(path: Path | str) -> LocalFiles:
    location = parse(str(path))
    assert isinstance(location, LocalFiles)
    return location


NAMES = ("b.txt", "a.txt", "z/c.txt", "m/n/d.md", "m/e.txt", ".git/x.txt", "m/.hidden.txt")


def test_files_come_in_name_order_without_the_hidden_ones(tmp_path: Path):
    top = tree(tmp_path, *NAMES)
    assert listed(at(top)) == ["a.txt", "b.txt", "m/e.txt", "m/n/d.md", "z/c.txt"]
    assert listed(at(top), ("**/*.txt",), ("m/*",)) == ["a.txt", "b.txt", "z/c.txt"]
    assert listed(at(top / "z/c.txt")) == ["c.txt"]
    assert listed(at(f"file://{top}/z")) == ["c.txt"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "m/e.txt", "z/c.txt"]),
        ("m/**", ["m/e.txt", "m/n/d.md"]),
        ("?", ["m/e.txt", "m/n/d.md", "z/c.txt"]),
        ("[!b].txt", ["a.txt"]),
        ("m/*", ["e.txt", "n/d.md"]),
        ("*/n/*.md", ["m/n/d.md"]),
    ],
)
def test_globs(tmp_path: Path, glob: str, expected: list[str]):
    tree(tmp_path, *NAMES)
    if glob == "m/*":
        assert listed(at(tmp_path / glob)) == expected, "paths are shown below the last folder without a wildcard"
    elif glob == "m/**":
        assert listed(at(tmp_path / glob)) == [each.removeprefix("m/") for each in expected]
    else:
        assert listed(at(tmp_path / glob)) == expected


def test_a_glob_without_a_file_or_a_folder_is_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match=r"nowhere/\*.txt does not exist: .*nowhere is no directory"):
        parse(str(tmp_path / "nowhere/*.txt"))
    with pytest.raises(ValueError, match=r"\*.md has no document \(it is empty\)"):
        ingest(IngestConfig(sources=str(tmp_path / "*.md")), tmp_path)


def test_links_are_followed_once_and_loops_are_counted(tmp_path: Path):
    top = tree(tmp_path / "top", "a/one.txt", "b/two.txt")
    outside = tree(tmp_path / "outside", "three.txt")
    (top / "a/up").symlink_to(top, target_is_directory=True)
    (top / "a/self").symlink_to(top / "a/self")
    (top / "c").symlink_to(outside, target_is_directory=True)
    (top / "d").symlink_to(outside, target_is_directory=True)
    (top / "e.txt").symlink_to(top / "b/two.txt")
    (top / "gone.txt").symlink_to(top / "nothing")
    assert listed(at(top)) == [
        "d: already read by another name",
        "e.txt",
        "gone.txt: cannot be read (No such file or directory)",
        "a/one.txt",
        "a/self: cannot be read (Too many levels of symbolic links)",
        "a/up: directory loop",
        "b/two.txt: already read by another name",
        "c/three.txt",
    ]


def test_files_outside_of_the_source_are_counted_by_their_link(tmp_path: Path):
    top = tree(tmp_path / "top", "a/one.txt")
    outside = tree(tmp_path / "outside", "three.txt", "below/four.txt")
    (top / "c").symlink_to(outside, target_is_directory=True)
    (top / "d.txt").symlink_to(tree(tmp_path / "else", "five.txt") / "five.txt")
    (tmp_path / "out").mkdir()
    report = ingest(IngestConfig(sources=str(top)), tmp_path / "out")
    outside_by_link = "file outside of the source's folder, through the link {}"
    assert report.documents == 4
    assert report.noted == {outside_by_link.format("c"): 2, outside_by_link.format("d.txt"): 1}


def test_a_file_that_vanishes_half_way_is_a_counted_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    top = tree(tmp_path / "top", "a.txt", "b.txt", "c/d.txt")
    find_files = files.find

    def and_remove(*arguments: object):
        for number, found in enumerate(find_files(*arguments)):
            if number == 1:
                (top / "b.txt").unlink()
                (top / "c/d.txt").unlink()
                (top / "c").rmdir()
            yield found

    monkeypatch.setattr("sluice.data.sources.plan.find", and_remove)
    (tmp_path / "out").mkdir()
    report = ingest(IngestConfig(sources=str(top)), tmp_path / "out")
    assert report.documents == 1
    assert report.rejects == {"cannot be read (No such file or directory)": 2}


def test_a_fifo_is_not_waited_for_and_a_name_that_is_not_utf8_is_shown_with_escapes(tmp_path: Path):
    top = tree(tmp_path / "top", "a.txt")
    os.mkfifo(top / "pipe.txt")
    (top / os.fsdecode(b"caf\xe9.txt")).write_text("coffee")
    (tmp_path / "out").mkdir()
    report = ingest(IngestConfig(sources=str(top)), tmp_path / "out")
    assert [each.metadata["path"] for each in read_documents(tmp_path / "out")] == ["a.txt", "caf\\udce9.txt"]
    assert report.rejects == {"not a regular file": 1}


def test_several_sources_keep_their_uri_and_licence(tmp_path: Path):
    one, two = tree(tmp_path / "one", "a.txt"), tree(tmp_path / "two", "b.txt", "c.py")
    (tmp_path / "out").mkdir()
    config = IngestConfig(sources=[str(one), Source(uri=str(two), licence="MIT", markup="txt", include=["*.py"])])
    report = ingest(config, tmp_path / "out")
    assert {name: (each.documents, each.licence) for name, each in report.sources.items()} == {
        str(one): (1, "unspecified"),
        str(two): (1, "MIT"),
    }


def test_a_pinned_file_is_checked(tmp_path: Path):
    path = tree(tmp_path, "a.txt") / "a.txt"
    wrong = Source(uri=str(path), sha256="0" * 64)
    with pytest.raises(ValueError, match=r"a.txt has sha256 [0-9a-f]{64}, the source pins 0000"):
        ingest(IngestConfig(sources=[wrong]), tmp_path)
    with pytest.raises(ValueError, match="sha256 pins one file"):
        ingest(IngestConfig(sources=[Source(uri=str(tmp_path), sha256="0" * 64)]), tmp_path)
