"""Whole builds that end badly, in processes of their own: a full disk, a kill at the worst moment."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data.manifest import read_manifest
from pipelines.cli import main

DISK_FULL = """
import resource, sys
from data.quality.language import _identifier
from pipelines.cli import main

_identifier()  # by way of a file of its own, larger than any of the build's
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in map(int, sys.argv[1].split(",")):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    print(main(sys.argv[2:]), flush=True)
"""
"""No file may pass the limit: so a disk without room looks to a program, at a place of the test's choice."""

DIES_ONCE_IT_IS_REMEMBERED = """
import os, signal, sys
from data.deduplication.index import DuplicateIndex
from pipelines.cli import main

add = DuplicateIndex.add

def add_and_die(*arguments):
    add(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

DuplicateIndex.add = add_and_die
main(sys.argv[1:])
"""
ONE = ["refine.workers=1", "data.documents_per_shard=4"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred pages of 400 words."""
    path = tmp_path_factory.mktemp("source") / "pages.jsonl"
    draw = random.Random(1)
    pages = [" ".join(["The end of", *(f"word{draw.randrange(10_000)}" for _ in range(400))]) for _ in range(100)]
    path.write_text("".join(json.dumps({"text": page}) + "\n" for page in pages))
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(["data", "build", "--source", str(source), "--out", str(out), *ONE]) == 0
    assert len(documents(out)) == 100
    return out


def documents(folder: Path) -> list[str]:
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def run(root: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        # Half a module's bytecode, cut by the limit, would stay for the next process.
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_on_a_full_disk_a_build_names_the_file_and_the_next_one_completes(
    root: Path, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, half = tmp_path / "out", tmp_path / ".out.partial"
    build = ["data", "build", "--source", str(source), "--out", str(out), *ONE]
    # A raw shard has 15 kB, shingles of a part 0.2 MB, the clean documents 0.4 MB: the disk is full at each of them.
    done = run(root, DISK_FULL, "3000,100000,300000", *build)
    assert done.stdout.split() == ["1", "1", "1"], done.stderr
    # A library may warn of its own troubles with the same disk between ours.
    errors = [line for line in done.stderr.splitlines() if line.startswith("sluice data build: ")]
    assert len(errors) == 3, done.stderr
    reading, scoring, writing = errors
    assert f"File too large: '{half}/raw/documents-0000.jsonl'" in reading
    assert "task documents-0000.jsonl to documents-" in scoring
    assert f"File too large: '{half}/work/" in scoring and "shingles.npy" in scoring
    assert f"File too large: '{half}/result/documents-0000.jsonl'" in writing
    assert not out.exists(), "half a build does not look like one"
    assert sorted(path.name for path in half.iterdir()) == ["work"], "what is not masked does not stay"
    assert len(list(half.glob("work/*/summary-*.json"))) == 2, "what was finished stays finished"
    assert main(build) == 0
    assert read_manifest(out) == read_manifest(undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_once_the_index_knows_a_build_the_next_one_keeps_the_same(
    root: Path, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, index = tmp_path / "out", tmp_path / "index"
    build = ["data", "build", "--source", str(source), "--out", str(out), *ONE, f"refine.index={index}"]
    died = run(root, DIES_ONCE_IT_IS_REMEMBERED, *build)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (entry,) = [path for path in index.iterdir() if path.is_dir()]
    assert main(build) == 0
    assert documents(out) == documents(undisturbed), "what was remembered of a dead build is no duplicate of itself"
    assert [path for path in index.iterdir() if path.is_dir()] == [entry]
