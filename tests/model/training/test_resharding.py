"""Going on from a checkpoint: the same bits where nothing changed, the same run where the layout of it did."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from rank_pool import RankPool
from resharding_variants import (
    FROM_ONE,
    RESHARDED,
    SAVED,
    STEPS,
    VARIANTS,
    advance,
    fresh_model,
    load,
    local_engine,
    pretrained,
    save,
    save_and_go_on_in_all_layouts,
)
from training_fixtures import training_rows

from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.resharding import AVERAGE, MASTER, checkpoint_names
from sluice.model.training.checkpointing.shards import ShardFiles


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A checkpoint of one process, and its losses after it."""
    folder = tmp_path_factory.mktemp("one")
    engine = local_engine("adamw", seed=3)
    advance(engine, 0, SAVED)
    save(engine, folder)
    return folder, advance(engine, SAVED, STEPS)


@pytest.fixture(scope="module")
def single(packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of one process."""
    folder = tmp_path_factory.mktemp("single")
    pretrained(folder, packed_corpus, workers=1, zero_stage=1)
    return folder


@pytest.fixture(scope="module")
def two_processes(
    rank_pool: RankPool,
    one_process: tuple[Path, list[float]],
    single: Path,
    packed_corpus: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("two")
    half_of(single, out / "single")
    rank_pool.run(2, save_and_go_on_in_all_layouts, out, one_process[0], packed_corpus)
    return out


def half_of(run_: Path, folder: Path) -> None:
    """The run as it was when it had saved its first checkpoint."""
    shutil.copytree(run_ / "checkpoints", folder / "checkpoints")
    for last in folder.glob(f"checkpoints/*/step-{STEPS:08d}"):
        shutil.rmtree(last)
    assert len(list(folder.glob("checkpoints/*/step-*"))) == 1


def losses(out: Path, name: str) -> list[float]:
    found: list[float] = json.loads((out / "losses.json").read_text())[name]
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_layout_goes_on_to_the_last_bit(two_processes: Path, variant: str) -> None:
    undisturbed = losses(two_processes, f"{variant} undisturbed")
    assert losses(two_processes, f"{variant} resumed") == undisturbed
    assert len(set(undisturbed)) == STEPS - SAVED


@pytest.mark.parametrize(("writer", "reader"), RESHARDED)
def test_another_zero_stage_or_split_goes_on(two_processes: Path, writer: str, reader: str) -> None:
    undisturbed = losses(two_processes, f"{writer} undisturbed")
    assert losses(two_processes, f"{writer} to {reader}") == pytest.approx(undisturbed, abs=1e-5)


@pytest.mark.parametrize("reader", FROM_ONE)
def test_two_processes_go_on_from_one(one_process: tuple[Path, list[float]], two_processes: Path, reader: str) -> None:
    assert losses(two_processes, f"one process to {reader}") == pytest.approx(one_process[1], abs=1e-5)


@pytest.mark.parametrize("writer", [name for name in VARIANTS if not name.endswith("bf16")])
def test_one_process_goes_on_from_two(two_processes: Path, writer: str) -> None:
    engine = local_engine(VARIANTS[writer][0], seed=4)
    load(engine, two_processes / writer)
    undisturbed = losses(two_processes, f"{writer} undisturbed")
    assert advance(engine, SAVED, STEPS) == pytest.approx(undisturbed, abs=1e-5)


def losses_of(folder: Path) -> list[float]:
    found = [row["loss"] for row in training_rows(folder) if "loss" in row]
    assert len(found) == STEPS
    return found


def test_a_whole_run_of_one_process_goes_on_in_two(single: Path, two_processes: Path) -> None:
    assert len(list((two_processes / "single" / "checkpoints").iterdir())) == 2
    assert losses_of(two_processes / "single") == pytest.approx(losses_of(single), abs=1e-5)


def test_a_whole_run_of_two_processes_goes_on_in_one_at_another_stage(
    two_processes: Path, packed_corpus: Path, tmp_path: Path
) -> None:
    half_of(two_processes / "pair", tmp_path)
    report = pretrained(tmp_path, packed_corpus, workers=1, zero_stage=3)
    assert report.timings["resumed_step"] == SAVED
    assert losses_of(tmp_path) == pytest.approx(losses_of(two_processes / "pair"), abs=1e-5)


@pytest.mark.parametrize("forgotten", ["exp_avg", "exp_avg_sq"])
def test_the_moments_matter(one_process: tuple[Path, list[float]], forgotten: str) -> None:
    """So that the tests above could fail."""
    engine = local_engine("adamw", seed=4)
    load(engine, one_process[0])
    for state in engine.optimizer.state.values():
        state[forgotten].zero_()
    assert advance(engine, SAVED, STEPS) != pytest.approx(one_process[1], abs=1e-3)


def test_one_process_goes_on_to_the_last_bit(one_process: tuple[Path, list[float]]) -> None:
    engine = local_engine("adamw", seed=4)
    load(engine, one_process[0])
    assert advance(engine, SAVED, STEPS) == one_process[1]


@pytest.mark.parametrize("writer", VARIANTS)
def test_every_master_weight_is_there_whole(two_processes: Path, writer: str) -> None:
    saved = shards(two_processes / writer).weights(MASTER)
    shapes = {name: parameter.shape for name, parameter in fresh_model(3).named_parameters()}
    assert {name: each.shape for name, each in saved.items()} == shapes
    assert {each.dtype for each in saved.values()} == {torch.float32}
    for name, average in shards(two_processes / writer).weights(AVERAGE).items():
        rounded = saved[name].bfloat16().float() if writer.endswith("bf16") else saved[name]
        assert torch.equal(average, 2 * rounded), name


def test_another_model_is_refused(one_process: tuple[Path, list[float]]) -> None:
    engine = local_engine("adamw", seed=3)
    engine.model.register_parameter("another", torch.nn.Parameter(torch.ones(2)))
    names = dict(checkpoint_names(engine.model))
    assert "another" in names
    with pytest.raises(ValueError, match="no parameter another: it is of another model"):
        load(engine, one_process[0])


def shards(folder: Path) -> ShardFiles:
    return checkpoints.open_checkpoint(checkpoints.checkpoint_path(folder, SAVED)).shards
