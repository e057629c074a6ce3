"""Two workers under DeepSpeed against plain PyTorch in one process, on the same global batches."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from training_fixtures import run, torchrun
from zero_variants import STEPS, VARIANTS, fresh_model, global_batch, scale

from model.architecture.loss import cross_entropy_sum
from model.architecture.transformer import Transformer
from model.config import PretrainConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("zero")
    run(torchrun(2, str(Path(__file__).with_name("zero_variants.py")), str(out)))
    return out


def newton_schulz(matrix: Tensor) -> Tensor:
    """The quintic iteration of Muon's reference implementation, in float32."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def adamw_update(model: Transformer, config: PretrainConfig) -> Callable[[float], None]:
    decayed = [each for each in model.parameters() if each.ndim > 1]
    rest = [each for each in model.parameters() if each.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        betas=(config.beta1, config.beta2),
    )

    def update(factor: float) -> None:
        assert config.gradient_clip is not None
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        optimizer.step()

    return update


def muon_update(model: Transformer, config: PretrainConfig) -> Callable[[float], None]:
    matrices = [each for name, each in model.named_parameters() if each.ndim > 1 and "embedding" not in name]
    others = [each for name, each in model.named_parameters() if each.ndim == 1 or "embedding" in name]
    adam = torch.optim.AdamW(others, betas=(config.beta1, config.beta2), weight_decay=0.0)
    momenta = [torch.zeros_like(each) for each in matrices]

    @torch.no_grad()
    def update(factor: float) -> None:
        for group in adam.param_groups:
            group["lr"] = config.learning_rate * factor
        adam.step()
        rate = config.muon_learning_rate * factor
        for weight, momentum in zip(matrices, momenta, strict=True):
            assert weight.grad is not None
            momentum.lerp_(weight.grad, 1 - config.muon_momentum)
            direction = newton_schulz(weight.grad.lerp(momentum, config.muon_momentum))
            weight.mul_(1 - rate * config.weight_decay)
            weight.add_(direction, alpha=-rate * math.sqrt(max(1.0, weight.shape[0] / weight.shape[1])))

    return update


def plain_pytorch(settings: dict[str, Any]) -> tuple[list[float], Transformer]:
    model, losses = fresh_model(), []
    config = PretrainConfig(**settings | {"workers": 1, "batch_size": 8, "micro_batch_size": 8})
    update = (muon_update if config.optimizer == "muon" else adamw_update)(model, config)
    for step in range(STEPS):
        batch = global_batch(step)
        nats, tokens = cross_entropy_sum(model, batch.ids, batch.targets, batch.mask)
        loss = nats / tokens
        loss.backward()
        update(scale(step))
        model.zero_grad()
        losses.append(float(loss))
    return losses, model


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_workers_train_as_plain_pytorch_does(trained: Path, variant: str) -> None:
    losses, model = plain_pytorch(VARIANTS[variant])
    assert json.loads((trained / "losses.json").read_text())[variant] == pytest.approx(losses, abs=1e-5)
    assert losses[-1] != losses[0]
    start = dict(fresh_model().named_parameters())
    weights = load_file(trained / f"{variant}.safetensors")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), atol=1e-5, rtol=0)
        assert not torch.equal(weights[name], start[name].detach()), f"{name} was never updated"
