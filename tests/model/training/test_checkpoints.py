import itertools
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.saver import Saver
from sluice.model.training.checkpointing.shards import ShardFiles, Snapshot, slice_name, write_shards

LOG = [{"step": 1, "loss": 2.5}]
SHAPES = {"weight": (2, 3)}


def shards(value: float, rank: int) -> Snapshot:
    return Snapshot(
        {f"weight:master:{3 * rank}": torch.full((3,), value + rank), "weight:step:0": torch.tensor(value)}, SHAPES
    )


def write(folder: Path, step: int, value: float, keep: int = 2, keep_every: int | None = None) -> None:
    own = {"random.cpu": torch.tensor([step], dtype=torch.uint8)}
    hashes = [checkpoints.write_rank(folder, step, rank, shards(value, rank), own) for rank in range(2)]
    extra = {"average": {"weight": torch.full((6,), value)}, "guard": {"losses": [value]}, "count": torch.tensor(step)}
    checkpoints.seal(folder, step, hashes, LOG, extra)
    checkpoints.retire(folder, keep, keep_every)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
    assert checkpoints.find_newest(tmp_path) == checkpoints.FoundCheckpoint(30, ())
    found = checkpoints.open_checkpoint(tmp_path / "step-00000030")
    assert (found.step, found.world, found.log) == (30, 2, LOG)
    assert found.shards.read("weight", "master", 2, 3).tolist() == [30.0, 31.0, 31.0]
    assert found.shards.weights("master")["weight"].tolist() == [[30.0] * 3, [31.0] * 3]
    assert (found.extra["guard"], found.extra["count"].item()) == ({"losses": [30]}, 30)
    assert found.extra["average"]["weight"].tolist() == [30.0] * 6
    assert found.own(1)["random.cpu"].tolist() == [30]
    assert found.own(2) == {}


@pytest.mark.parametrize(
    "name", ["shared.safetensors", "rank-00000.safetensors", "rank-00001.safetensors", "log.jsonl", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["cut", "removed", "changed"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path, 10, 1.0)
    write(tmp_path, 20, 2.0)
    path = tmp_path / "step-00000020" / name
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ValueError, match=f"not a checkpoint to resume from .{name} "):
        checkpoints.open_checkpoint(path.parent)
    found = checkpoints.find_newest(tmp_path)
    assert found.step == 10
    assert len(found.notes) == 1
    assert f"checkpoint of step 20 is damaged ({name} " in found.notes[0]
    # It does not count among those that are kept.
    write(tmp_path, 15, 1.5, keep=1)
    assert checkpoints.find_newest(tmp_path) == checkpoints.FoundCheckpoint(15, ())
    write(tmp_path, 20, 2.5)
    assert checkpoints.open_checkpoint(path.parent).shards.read("weight", "master", 0, 1).item() == 2.5


def test_a_number_changed_in_the_manifest_is_seen(tmp_path: Path) -> None:
    write(tmp_path, 10, 1.0)
    path = tmp_path / "step-00000010" / "manifest.json"
    path.write_text(path.read_text().replace('"losses": [1.0]', '"losses": [7.0]'))
    assert "manifest.json has changed since it was written" in str(checkpoints.damage(path.parent))


def test_what_was_never_sealed_is_swept_away(tmp_path: Path) -> None:
    checkpoints.write_rank(tmp_path, 10, 0, shards(1.0, 0), {})
    assert checkpoints.find_newest(tmp_path) == checkpoints.FoundCheckpoint(None, ())
    assert list(tmp_path.iterdir()) == []


def test_no_pickle_is_written(tmp_path: Path) -> None:
    write(tmp_path, 10, 1.0)
    suffixes = {path.suffix for path in (tmp_path / "step-00000010").iterdir()}
    assert suffixes == {".json", ".jsonl", ".safetensors"}
    assert json.loads((tmp_path / "step-00000010" / "manifest.json").read_text())["step"] == 10


@given(steps=st.sets(st.integers(1, 200)), keep=st.integers(1, 5), every=st.none() | st.integers(1, 50))
def test_the_newest_and_the_milestones_stay(steps: set[int], keep: int, every: int | None) -> None:
    gone = set(checkpoints.outdated(steps, keep, every))
    left = steps - gone
    assert gone <= steps
    assert left >= set(sorted(steps)[-keep:])
    assert left >= {step for step in steps if every and step % every == 0}
    assert len(left - {step for step in steps if every and step % every == 0}) <= keep


@given(data=st.data(), numel=st.integers(1, 40))
def test_any_range_is_read_from_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, numel: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    cuts = sorted(data.draw(st.sets(st.integers(1, numel), max_size=4)) | {0, numel})
    values = torch.arange(numel, dtype=torch.float32)
    paths = []
    for rank, (start, end) in enumerate(itertools.pairwise(cuts)):
        # Two ranks may hold the same elements, as of a matrix on the border of their ranges.
        first = data.draw(st.integers(0, start))
        paths.append(folder / f"{rank}.safetensors")
        write_shards(paths[-1], Snapshot({f"w.x:m:{first}": values[first:end].clone()}, {"w.x": (numel,)}), {})
    start = data.draw(st.integers(0, numel - 1))
    count = data.draw(st.integers(1, numel - start))
    files = ShardFiles(paths)
    assert files.read("w.x", "m", start, count).tolist() == values[start:][:count].tolist()
    with pytest.raises(ValueError, match=f"lacks elements {numel} to {numel + 1} of m of w.x"):
        files.read("w.x", "m", start, numel - start + 1)
    assert files.keys("w.x") == {"m"}


@pytest.mark.parametrize("dim", [0, 1])
def test_shards_of_one_split_are_read_as_those_of_another(tmp_path: Path, dim: int) -> None:
    whole = torch.arange(32, dtype=torch.float32).view(4, 8)
    for rank, part in enumerate(whole.chunk(4, dim)):
        name = slice_name("w", dim, rank, 4)
        own = {f"{name}:m:0": part.flatten(), f"{name}:step:0": torch.tensor(3.0)}
        write_shards(tmp_path / f"{rank}.safetensors", Snapshot(own, {"w": (4, 8)}), {})
    files = ShardFiles(sorted(tmp_path.iterdir()))
    for rank, part in enumerate(whole.chunk(2, dim)):
        assert files.read(slice_name("w", dim, rank, 2), "m", 3, 9).tolist() == part.flatten()[3:12].tolist()
    assert torch.equal(files.weights("m")["w"], whole)
    assert files.scalar("w", "step") == torch.tensor(3.0)
    with pytest.raises(ValueError, match="no parameter x"):
        files.keys(slice_name("x", 0, 0, 2))


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow beyond 64 KB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def snapshot(elements: int, value: float = 1.0) -> Snapshot:
    return Snapshot({"weight:master:0": torch.full((elements,), value)}, {"weight": (elements,)})


def test_a_checkpoint_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    log = [{"step": 1, "loss": 2.0}]
    average = torch.ones(2)
    with Saver(tmp_path) as saver:
        saver.save(1, snapshot(2), log, {"average": average, "losses": [1.0]})
        average.fill_(9.0)
        log.append({"step": 2, "loss": 1.0})
    found = checkpoints.open_checkpoint(tmp_path / "step-00000001")
    assert found.log == [{"step": 1, "loss": 2.0}]
    assert (found.extra["average"].tolist(), found.extra["losses"]) == ([1.0, 1.0], [1.0])
    assert saver.wait() is None


@pytest.mark.parametrize("what", ["shards", "shared"])
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_nothing_half_and_the_run_goes_on(tmp_path: Path, what: str) -> None:
    big = torch.ones(100_000)
    saver = Saver(tmp_path)
    saver.save(1, snapshot(10), LOG, {})
    saver.save(2, snapshot(100_000 if what == "shards" else 10), LOG, {"big": big} if what == "shared" else {})
    assert "File too large" in str(saver.wait())
    assert checkpoints.complete_steps(tmp_path) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    (note,) = saver.take_notes()
    assert note.startswith("the checkpoint of step 2 was not written: ")
    assert saver.take_notes() == []
    saver.save(3, snapshot(10, 3.0), LOG, {})
    assert saver.wait() is None
    assert checkpoints.find_newest(tmp_path) == checkpoints.FoundCheckpoint(3, ())


def test_what_should_not_happen_in_the_thread_is_raised_where_one_waits(tmp_path: Path) -> None:
    with pytest.raises(TypeError), Saver(tmp_path) as saver:
        saver.save(1, snapshot(2), [{"loss": torch.ones(1)}], {})


def test_an_old_checkpoint_that_cannot_be_removed_does_not_unmake_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("device busy")

    monkeypatch.setattr(checkpoints, "retire", refuse)
    saver = Saver(tmp_path)
    saver.save(10, shards(1.0, 0), LOG, {"guard": None})
    assert saver.wait() is None
    assert saver.take_notes() == ["an old checkpoint was not removed: device busy"]
    assert checkpoints.find_newest(tmp_path).step == 10
