"""Whole builds that end badly, in processes of their own: a full disk, a kill at the worst moment."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sluice.core.manifest import read_manifest
from sluice.pipelines.cli import main

pytestmark = pytest.mark.process

DISK_FULL = """
import resource, sys
from sluice.data.quality.language import _identifier
from sluice.pipelines.cli import main

_identifier()  # by way of a file of its own, larger than any of the build's
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in map(int, sys.argv[1].split(",")):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    print(main(sys.argv[2:]), flush=True)
"""
"""No file may pass the limit: so a disk without room looks to a program, at a place of the test's choice."""

FULL_TMPFS = """
import json, subprocess, sys
from pathlib import Path
from sluice.pipelines.cli import main

disk = Path(sys.argv[1])
for step, size in enumerate(sys.argv[2].split(",")):
    options = f"size={size},remount" if step else f"size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    code = main(sys.argv[3:])
    names = sorted(path.relative_to(disk).as_posix() for path in disk.rglob("*"))
    print(json.dumps({"code": code, "names": names}), flush=True)
print(json.dumps(json.loads((disk / "out" / "manifest.json").read_text())))
"""
"""A build on a disk of its own that is small, then larger; it goes with the process and is seen by no other."""
MOUNTING = ["unshare", "--user", "--map-root-user", "--mount"]

DIES_ONCE_IT_IS_REMEMBERED = """
import os, signal, sys
from sluice.data.deduplication.index import DuplicateIndex
from sluice.pipelines.cli import main

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


def run(root: Path, code: str, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-c", code, *arguments],
        cwd=root,
        env=_environment(root),
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_on_a_full_disk_a_build_names_the_file_and_the_next_one_completes(
    root: Path, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, half = tmp_path / "out", tmp_path / ".out.partial"
    build = ["data", "build", "--source", str(source), "--out", str(out), *ONE]
    # A raw shard has 15 kB, shingles of a part 0.2 MB, the clean documents 0.4 MB: the disk is full at each of them.
    done = run(root, DISK_FULL, "3000,100000,300000", *build)
    statuses = [line for line in done.stdout.splitlines() if not line.endswith("started")]
    assert statuses == ["1", "1", "1"], done.stderr
    # A library may warn of its own troubles with the same disk between ours.
    errors = [line for line in done.stderr.splitlines() if line.startswith("sluice data build: ")]
    assert len(errors) == 3, done.stderr
    reading, scoring, writing = errors
    assert f"task pages.jsonl (reading) failed: {half}/read/" in reading
    assert "/documents-0000.jsonl: File too large" in reading
    assert "task documents-0000.jsonl to documents-" in scoring
    assert f"failed: {half}/work/" in scoring and "File too large" in scoring and "shingles.npy" in scoring
    assert f"{half}/result/documents-0000.jsonl: File too large" in writing
    assert not out.exists(), "half a build does not look like one"
    assert sorted(path.name for path in half.iterdir()) == ["work"], "what is not masked does not stay"
    assert len(list(half.glob("work/*/summary-*.json"))) == 2, "what was finished stays finished"
    assert main(build) == 0
    assert read_manifest(out) == read_manifest(undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _environment(root: Path) -> dict[str, str]:
    # Half a module's bytecode, cut by the limit, would stay for the next process.
    return os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


def may_mount(folder: Path) -> bool:
    try:
        command = [*MOUNTING, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, timeout=300).returncode == 0
    except FileNotFoundError:
        return False


def test_on_a_disk_that_is_really_full_nothing_half_made_stays(
    root: Path, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not may_mount(disk):
        pytest.skip("this user may not mount a tmpfs in a namespace of its own")
    build = ["data", "build", "--source", str(source), "--out", str(disk / "out"), *ONE]
    # Raw text has 0.4 MB, the scored parts 0.7 MB beside it, their copy in the result and its documents 0.7 MB more.
    done = run(root, FULL_TMPFS, str(disk), "200k,800k,1200k,1600k,16m", *build, prefix=MOUNTING)
    *told, manifest = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each["code"] for each in told] == [1, 1, 1, 1, 0], done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("sluice data build: ")]
    assert len(errors) == 4, done.stderr
    full = f"No space left on device, on the file system {disk}: "
    assert all(full in each and f"{disk}/.out.partial/" in each for each in errors), "\n".join(errors)
    places = ("/read/", "/work/", "/result/evidence/", "/result/")
    assert all(place in each for place, each in zip(places, errors, strict=True)), "\n".join(errors)
    unmasked = tuple(f".out.partial/{name}" for name in ("raw", "read", "result"))
    for each in told[:-1]:
        assert not any(name.startswith(("out", *unmasked)) for name in each["names"])
        half_made = [name for name in each["names"] if Path(name).name.startswith(".") and name != ".out.partial"]
        assert not half_made
    assert {Path(name).parts[0] for name in told[-1]["names"]} == {"out"}
    assert manifest == read_manifest(undisturbed)


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
