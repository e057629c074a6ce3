"""Workers under DeepSpeed against plain PyTorch in one process, on the same global batches: every legal combination of
ZeRO stage, offload, pipeline, tensor slices, accumulation, type, checkpointing and optimizer.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_pool import RankPool
from safetensors.torch import load_file
from torch import Tensor, nn
from zero_variants import (
    BATCH,
    COMBINATIONS,
    FOUR_WORKERS,
    OTHERS,
    STEPS,
    VARIANTS,
    Settings,
    config_of,
    cover,
    every_combination,
    fresh_model,
    global_batch,
    rows_at_once,
    scale,
    shape_of,
    train_in_a_rank,
)

from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.moe import expert_load
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch

Update = Callable[[float], None]

FLOAT32 = 1e-5
"""Absolute tolerance of losses and weights."""
BFLOAT16_LOSS, BFLOAT16_WEIGHT = 0.02, 0.004
"""Tolerance of losses, and weights on average: bf16 has 8 bits, and Adam's first steps are the signs of gradients."""


def newton_schulz(matrix: Tensor) -> Tensor:
    """The quintic iteration of Muon's reference implementation, in float32."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not any(part in name for part in ("embedding", "head.", "relative"))


def adamw_update(model: Transformer, config: PretrainConfig) -> Update:
    decayed = [each for name, each in model.named_parameters() if each.ndim > 1 and "conv1d" not in name]
    rest = [each for name, each in model.named_parameters() if each.ndim == 1 or "conv1d" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        betas=(config.beta1, config.beta2),
    )

    def update(factor: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        optimizer.step()

    return update


def lion_update(model: Transformer, config: PretrainConfig) -> Update:
    momenta = {each: torch.zeros_like(each) for each in model.parameters()}

    @torch.no_grad()
    def update(factor: float) -> None:
        rate = config.learning_rate * factor
        for weight, momentum in momenta.items():
            assert weight.grad is not None
            direction = (config.beta1 * momentum + (1 - config.beta1) * weight.grad).sign()
            if weight.ndim > 1:
                weight.mul_(1 - rate * config.weight_decay)
            weight.sub_(rate * direction)
            momentum.mul_(config.beta2).add_(weight.grad, alpha=1 - config.beta2)

    return update


def muon_update(model: Transformer, config: PretrainConfig) -> Update:
    matrices = [each for name, each in model.named_parameters() if is_matrix(name, each)]
    others = [each for name, each in model.named_parameters() if not is_matrix(name, each)]
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


UPDATES = {"adamw": adamw_update, "muon": muon_update, "lion": lion_update}


def loss_of(model: Transformer, batch: Batch, z_loss: float) -> tuple[Tensor, Tensor]:
    """The objective and the cross-entropy; nats a token."""
    logits = model(batch.ids, **batch.inputs)
    rows, targets = logits[batch.mask].float(), batch.targets[batch.mask]
    entropy = nn.functional.cross_entropy(rows, targets)
    return entropy + z_loss * rows.logsumexp(-1).square().mean(), entropy.detach()


def objective_of(model: Transformer, batch: Batch, z_loss: float, rows: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Objective of a step, its cross-entropy, and the experts' load [layers, experts], over micro-batches of `rows`.

    Each weighs as its targets do: what is a mean over targets is that of the whole batch, and the routers' losses are
    means over a micro-batch.
    """
    objective, entropy, loads = torch.zeros(()), torch.zeros(()), []
    for part in batch.split(rows):
        share = part.tokens / batch.tokens
        minimized, nats = loss_of(model, part, z_loss)
        if model.routing:
            mixture = model.config.mixture
            assert mixture is not None
            minimized = minimized + sum(
                mixture.balance_weight * r.balance + mixture.z_weight * r.z for r in model.routing
            )
            loads.append(expert_load(model.routing).detach())
        objective, entropy = objective + share * minimized, entropy + share * nats
    return objective, entropy, torch.stack(loads).mean(dim=0) if loads else None


def nats_by_place(model: Transformer, batch: Batch) -> list[float]:
    """Summed nats of the targets that count at each place of the rows, [seq]."""
    logits = model(batch.ids, **batch.inputs).float()
    each = nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none")
    return each.where(batch.mask, 0).sum(dim=0).tolist()


def plain_pytorch(variant: Settings) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One process, one batch a step, whole gradients; in float32 whatever the variant's type."""
    known = {key: variant[key] for key in ("optimizer", "shape", "z_loss", "documents") if key in variant}
    if variant.get("shape") == "routed":
        known["micro_batch_size"] = variant["micro_batch_size"]
    return _plain_pytorch(json.dumps(known))


@lru_cache
def _plain_pytorch(text: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    variant = json.loads(text)
    model, config = fresh_model(shape_of(variant)), config_of({"micro_batch_size": BATCH, **variant}, 1)
    update = UPDATES[config.optimizer](model, config)
    found: dict[str, Any] = {"losses": [], "norms": []}
    held_out = global_batch(1000, variant)
    with torch.no_grad():
        found["before"] = float(loss_of(model, held_out, 0)[1])
        found["by_place"] = nats_by_place(model, held_out)
    for step in range(STEPS):
        rows = rows_at_once(config, step) if "micro_batch_size" in variant else BATCH
        objective, entropy, load = objective_of(model, global_batch(step, variant), config.z_loss, rows)
        objective.backward()
        found["losses"].append(float(entropy))
        found["by_group"] = by_group({name: each.grad for name, each in model.named_parameters()})
        found["norms"].append(float(nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip or math.inf)))
        before = {name: each.detach().clone() for name, each in model.named_parameters()}
        update(scale(step))
        found["moved"] = by_group({name: each.detach() - before[name] for name, each in model.named_parameters()})
        found["load"] = None if load is None else load.tolist()
        model.zero_grad()
    with torch.no_grad():
        found["after"] = float(loss_of(model, held_out, 0)[1])
    return found, {name: each.detach() for name, each in model.named_parameters()}


def by_group(tensors: dict[str, Tensor | None]) -> dict[str, float]:
    """L2 norms of the embedding, of each layer, and of the rest."""
    squares: dict[str, float] = {}
    for name, tensor in tensors.items():
        assert tensor is not None
        group = re.sub(r"^((?:encoder\.)?layers\.\d+|[a-z_]+)\..*", r"\1", name)
        squares[group] = squares.get(group, 0.0) + float(tensor.double().square().sum())
    return {group: math.sqrt(square) for group, square in squares.items()}


def assert_the_same(out: Path, name: str, variant: Settings) -> None:
    """Compare the models trained into `out` with plain PyTorch."""
    found, weights = json.loads((out / f"{name}.json").read_text()), load_file(out / f"{name}.safetensors")
    expected, parameters = plain_pytorch(variant)
    narrow = variant.get("dtype") == "bf16"
    tolerance = BFLOAT16_LOSS if narrow else FLOAT32
    for measured in ("losses", "before", "after"):
        assert found[measured] == pytest.approx(expected[measured], abs=tolerance), measured
    # Sums over up to eight rows.
    assert found["by_place"] == pytest.approx(expected["by_place"], abs=8 * tolerance)
    assert found["norms"] == pytest.approx(expected["norms"], rel=0.05 if narrow else 1e-5)
    assert found["by_group"] == pytest.approx(expected["by_group"], rel=0.1 if narrow else 1e-3)
    # What bf16 rounds: a gain near 1 moves by 1/128 or not at all.
    moved = {"rel": 0.3, "abs": 1 / 128} if narrow else {"rel": 2e-3}
    assert found["moved"] == pytest.approx(expected["moved"], **moved)
    assert sum(norm**2 for norm in found["by_group"].values()) == pytest.approx(found["norms"][-1] ** 2, rel=1e-6)
    assert bool(found["load"]) == (variant.get("shape") in {"mixture", "routed"})
    if found["load"]:
        assert torch.tensor(found["load"]).allclose(torch.tensor(expected["load"]), atol=1e-6)
    assert found["applied"] == [True] * STEPS and found["refused"]
    assert expected["losses"][0] != expected["losses"][-1] and expected["before"] != expected["after"]
    assert found["compiled"] or not variant.get("compile")
    start = dict(fresh_model(shape_of(variant)).named_parameters())
    assert weights.keys() == parameters.keys() == start.keys()
    for name, parameter in parameters.items():
        difference = (weights[name] - parameter).abs()
        assert float(difference.mean() if narrow else difference.max()) < (BFLOAT16_WEIGHT if narrow else FLOAT32), name
        assert not torch.equal(parameter, start[name].detach()), f"{name} was never updated"


@pytest.mark.parametrize(
    "name", [name if name in cover() else pytest.param(name, marks=pytest.mark.matrix) for name in VARIANTS]
)
def test_two_workers_train_as_plain_pytorch_does(rank_pool: RankPool, tmp_path: Path, name: str) -> None:
    rank_pool.run(2, train_in_a_rank, name, tmp_path)
    assert_the_same(tmp_path, name, VARIANTS[name])


@pytest.mark.parametrize("name", FOUR_WORKERS)
def test_four_workers_train_as_plain_pytorch_does(rank_pool: RankPool, tmp_path: Path, name: str) -> None:
    rank_pool.run(4, train_in_a_rank, name, tmp_path)
    assert_the_same(tmp_path, name, FOUR_WORKERS[name])


def test_make_test_trains_every_pair_of_choices_and_every_feature() -> None:
    covered = [COMBINATIONS[name] for name in cover() if name in COMBINATIONS]
    choices = ("zero_stage", "dtype", "activation_checkpointing", "pipeline_stages", "tensor_parallel", "accumulates")

    def pairs(variants: Iterable[Settings]) -> set[Any]:
        return {
            (first, each.get(first), second, each.get(second))
            for each in ({**variant, "accumulates": variant["micro_batch_size"] in (1, 2)} for variant in variants)
            for first, second in combinations(choices, 2)
        }

    assert pairs(covered) == pairs(COMBINATIONS.values())
    assert len(covered) <= 16 < len(COMBINATIONS)
    names = ("shape", "optimizer", "offload", "documents", "z_loss", "compile")
    for name in names:
        assert {OTHERS[each].get(name) for each in cover() if each in OTHERS} == {
            each.get(name) for each in OTHERS.values()
        }, name


def test_the_combinations_are_all_that_two_workers_may_train_by(root: Path) -> None:
    """They are asked of the rules themselves: one that refused too much would leave cases out without a word."""
    checkpointing, micros = ("none", "selective", "full"), (1, 4)
    legal = {
        *(
            (way, stage, "fp32")
            for way, stages in (("data", 4), ("pipeline", 2), ("tensor", 3))
            for stage in range(stages)
        ),
        *(
            (way, stage, "bf16")
            for way, stages in (("data", 4), ("pipeline", 2), ("tensor", 3))
            for stage in range(1, stages)
        ),
    }
    expected = {
        f"{way}-zero{stage}-{dtype}-{how}-by{count}"
        for way, stage, dtype in legal
        for how in checkpointing
        for count in micros
        if not (stage == 3 and how == "selective")
    }
    found = every_combination()
    assert set(found) == expected and set(found) <= set(VARIANTS)
    assert f"({len(expected)} of them" in (root / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_losses_of_the_reference_are_those_of_the_model_room() -> None:
    model, batch = fresh_model(shape_of({})), global_batch(0, {})
    nats, tokens = cross_entropy_sum(model, batch.ids, batch.targets, batch.mask)
    assert float(nats.detach() / tokens) == pytest.approx(float(loss_of(model, batch, 0)[1]), abs=1e-6)


def test_the_routers_losses_of_the_reference_are_in_its_gradients() -> None:
    """Or the variants with weights for them would hold no more than those without."""
    with_losses, without = (plain_pytorch({"shape": each, "micro_batch_size": 2})[1] for each in ("routed", "mixture"))
    name = next(each for each in without if "router" in each)
    assert float((with_losses[name] - without[name]).abs().max()) > 100 * FLOAT32
