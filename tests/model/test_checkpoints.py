import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.config import PretrainConfig
from model.training import checkpoints
from model.training.optimizer import adamw, build_optimizer, capture, parameter_groups, restore, set_learning_rate

LOG = [{"step": 1, "loss": 2.5}]


def write(folder: Path, step: int, value: float) -> None:
    for rank in range(2):
        checkpoints.write_rank(folder, step, rank, {"moment": torch.full((3,), value + rank)})
    checkpoints.seal(folder, step, {"weight": torch.full((2, 2), value)}, LOG, keep=2)


def test_the_newest_two_are_kept_and_read_back(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
    assert checkpoints.newest_intact(tmp_path) == 30
    found = checkpoints.read(tmp_path, 30, rank=1)
    assert found.optimizer["moment"].tolist() == [31.0] * 3
    assert found.weights["weight"].tolist() == [[30.0] * 2] * 2
    assert (found.step, found.log) == (30, LOG)


@pytest.mark.parametrize("name", ["weights.safetensors", "rank-00001.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "removed", "changed"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path, 10, 1.0)
    write(tmp_path, 20, 2.0)
    path = tmp_path / "step-00000020" / name
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    assert checkpoints.newest_intact(tmp_path) == 10
    write(tmp_path, 20, 2.5)
    assert checkpoints.newest_intact(tmp_path) == 20
    assert checkpoints.read(tmp_path, 20, rank=0).weights["weight"][0, 0] == 2.5


def test_what_was_never_sealed_is_swept_away(tmp_path: Path) -> None:
    checkpoints.write_rank(tmp_path, 10, 0, {"moment": torch.zeros(3)})
    assert checkpoints.newest_intact(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_no_pickle_is_written(tmp_path: Path) -> None:
    write(tmp_path, 10, 1.0)
    for path in (tmp_path / "step-00000010").iterdir():
        assert path.suffix in {".json", ".safetensors"}
    assert json.loads((tmp_path / "step-00000010" / "manifest.json").read_text())["step"] == 10


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(7, 4)
        self.linear = nn.Linear(4, 4, bias=False)
        self.gain = nn.Parameter(torch.ones(4))

    def loss(self, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(7, (5,), generator=generator)
        return (self.linear(self.embedding(ids)) * self.gain).square().sum()


def optimizer_of(model: Small) -> torch.optim.Optimizer:
    return adamw(parameter_groups(model), 0.1, weight_decay=0.1, betas=(0.9, 0.95))


def steps(model: Small, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        set_learning_rate(optimizer, 1 / (step + 1))
        model.loss(step).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_restored_optimizer_goes_on_to_the_last_bit() -> None:
    whole = Small()
    optimizer = optimizer_of(whole)
    steps(whole, optimizer, 0, 5)
    state = {name: tensor.clone() for name, tensor in capture(optimizer).items()}
    steps(whole, optimizer, 5, 9)

    resumed = Small()
    other = optimizer_of(resumed)
    restore(other, state)
    steps(resumed, other, 5, 9)
    for name, parameter in whole.named_parameters():
        assert torch.equal(dict(resumed.named_parameters())[name], parameter), name


def test_parameters_are_split_by_what_they_are() -> None:
    model = Small()
    groups = parameter_groups(model)
    assert [id(each) for each in groups["embedding"]] == [id(model.embedding.weight)]
    assert [id(each) for each in groups["matrices"]] == [id(model.linear.weight)]
    assert [id(each) for each in groups["vectors"]] == [id(model.gain)]
    decayed, kept = build_optimizer(model, PretrainConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert kept["params"] == groups["vectors"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "muon", "gradient_clip": 1.0}, "does not go with optimizer muon"),
        ({"dtype": "bf16", "zero_stage": 0}, "dtype bf16 needs zero_stage 1"),
        ({"batch_size": 10}, "must be a multiple of workers x micro_batch_size"),
        ({"optimizer": "sgd"}, "optimizer"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**settings)
