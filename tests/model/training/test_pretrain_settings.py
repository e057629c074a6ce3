"""Settings of a pretraining run: what is refused, and what the optimizer makes of them."""

from typing import Any

import pytest
import torch
from torch import nn

from sluice.model.config import PretrainConfig
from sluice.model.training.optimization.optimizer import build_optimizer
from sluice.model.training.optimization.parameter_groups import parameter_groups


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(7, 4)
        self.linear = nn.Linear(4, 4, bias=False)
        self.gain = nn.Parameter(torch.ones(4))


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
        ({"batch_size": 10}, "a multiple of workers x micro_batch_size = 2 x 16: micro_batch_size 5 would do"),
        ({"batch_size": 24, "micro_batch_size": 5}, "= 2 x 5: micro_batch_size 4 would do"),
        ({"batch_size": 7}, "must be a multiple of workers x micro_batch_size = 2 x 16 "),
        ({"optimizer": "sgd"}, "optimizer"),
        (
            {"schedule": "cosine", "decay_fraction": 0.5},
            "decay_fraction 0.5 and decay_from null have no effect with schedule cosine, .* set them to 1.0 and null",
        ),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**settings)
