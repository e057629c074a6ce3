"""Norms by layer group are those of the gradient and the update, and do not depend on where a run was resumed."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from sluice.core.progress import no_progress
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.architecture.moe import expert_load
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.engines.norms import layer_group
from sluice.model.training.loop import LoopClock, LoopHooks, StepRecord, train
from sluice.model.training.optimization.optimizer import build_optimizer
from sluice.model.training.telemetry.curves import draw_losses, smoothed
from sluice.model.training.telemetry.metrics import StepMetrics
from sluice.model.training.telemetry.tracking import numbers, parameters

SHAPE = TransformerConfig(
    vocab_size=50, hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, context=16
)


def engine_and_metrics(every: int) -> tuple[LocalEngine, StepMetrics]:
    model = Transformer(SHAPE)
    initialize(model, 0)
    ticks = count()
    engine = LocalEngine(model, build_optimizer(model, PretrainConfig(learning_rate=0.01)))
    metrics = StepMetrics(engine, every=every, flops_per_token=10.0, peak_flops=1e4, clock=lambda: float(next(ticks)))
    return engine, metrics


def batch(step: int) -> Batch:
    ids = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(step))
    return Batch(ids[:, :-1], ids[:, 1:])


def rows_of(engine: LocalEngine, metrics: StepMetrics, done: int, steps: int) -> list[dict[str, Any]]:
    hooks = LoopHooks(
        steps=steps,
        micro_batch_size=2,
        learning_rate_scale=lambda _: 1.0,
        batch=batch,
        inspect=metrics.inspect,
        observe=metrics.observe,
    )
    return train(engine, hooks, done=done, log=[], progress=no_progress, clock=LoopClock())


def test_group_norms_make_up_the_whole_gradient_and_the_update() -> None:
    engine, metrics = engine_and_metrics(every=2)
    metrics.start()
    rows_of(engine, metrics, 0, 1)
    before = {name: each.detach().clone() for name, each in engine.model.named_parameters()}
    [row] = rows_of(engine, metrics, 1, 2)
    assert set(row["gradient_norms"]) == set(row["update_norms"]) == {"embedding", "layers.0", "layers.1", "norm"}
    whole = sum(norm**2 for norm in row["gradient_norms"].values()) ** 0.5
    assert whole == pytest.approx(row["gradient_norm"], rel=1e-5)
    moved = {name: float((each.detach() - before[name]).norm()) for name, each in engine.model.named_parameters()}
    first = sum(norm**2 for name, norm in moved.items() if layer_group(name) == "layers.0") ** 0.5
    assert first > 0
    assert row["update_norms"]["layers.0"] == pytest.approx(first, rel=1e-5)


def test_only_steps_that_are_due_are_looked_at() -> None:
    engine, metrics = engine_and_metrics(every=3)
    metrics.start()
    rows = rows_of(engine, metrics, 0, 7)
    assert [row["step"] for row in rows if "update_norms" in row] == [3, 6]
    assert [row["step"] for row in metrics.speed] == [3, 6]


@pytest.mark.parametrize("done", [3, 4, 5])
def test_a_resumed_run_reports_the_same_norms(done: int) -> None:
    engine, metrics = engine_and_metrics(every=2)
    metrics.start()
    whole = rows_of(engine, metrics, 0, 6)
    engine, metrics = engine_and_metrics(every=2)
    metrics.start()
    rows_of(engine, metrics, 0, done)
    # As after loading: the weights are those of `done` steps, and nothing is known of them.
    _, metrics = engine_and_metrics(every=2)
    metrics.engine = engine
    metrics.start()
    assert rows_of(engine, metrics, done, 6) == whole[done:]


@pytest.mark.parametrize("rows", [4, 3])
def test_the_load_of_experts_is_that_of_the_whole_step(rows: int) -> None:
    shape = SHAPE.model_copy(update={"mixture": MixtureConfig(experts=3, per_token=1, normalize=False)})
    model = Transformer(shape)
    initialize(model, 0)
    engine = LocalEngine(model, build_optimizer(model, PretrainConfig()))
    with torch.no_grad():
        model(batch(0).ids)
        shares = expert_load(model.routing)
    hooks = LoopHooks(steps=1, micro_batch_size=rows, learning_rate_scale=lambda _: 1.0, batch=batch)
    [row] = train(engine, hooks, done=0, log=[], progress=no_progress, clock=LoopClock())
    assert row["expert_load"] == pytest.approx(shares.amax(dim=-1).tolist(), abs=1e-6)
    assert 1 / 3 < max(row["expert_load"]) < 1 and row["dropped"] == 0
    assert engine.expert_load() is None


def test_speed_is_a_share_of_the_peak() -> None:
    _, metrics = engine_and_metrics(every=1)
    metrics.start()
    metrics.inspect(1)
    metrics.observe(StepRecord(1, 2.0, 15, 100, 1.0, None))
    # One tick of the clock: 100 tokens of 10 FLOPs at a peak of 10,000.
    assert metrics.speed[0]["tokens_per_second"] == 100
    assert metrics.speed[0]["mfu"] == pytest.approx(0.1)
    assert metrics.speed[0]["memory_bytes"] > 0


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("layers.11.attention.query.weight", "layers.11"),
        ("encoder.layers.2.feedforward.up", "encoder.layers.2"),
        ("embedding.weight", "embedding"),
        ("norm.weight", "norm"),
    ],
)
def test_layer_groups(name: str, group: str) -> None:
    assert layer_group(name) == group


def test_losses_are_drawn_alike(tmp_path: Path) -> None:
    log = [{"step": step, "loss": 3 / step} for step in range(1, 50)] + [{"step": 49, "validation_loss": 0.5}]
    for name in ("a.svg", "b.svg"):
        draw_losses({"run": log}, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").stat().st_size > 5000
    with pytest.raises(ValueError, match="has no step"):
        draw_losses({"run": []}, tmp_path / "c.svg")
    with pytest.raises(ValueError, match=r"must end in \.svg"):
        draw_losses({"run": log}, tmp_path / "c.pdf")


def test_smoothing_is_a_mean_of_the_last_values() -> None:
    assert smoothed(torch.tensor([1.0, 2.0, 6.0, 6.0]).numpy(), 2).tolist() == [1.0, 1.5, 4.0, 6.0]


def test_what_mlflow_is_told() -> None:
    row = {"step": 3, "loss": 2, "skipped": "why", "update_norms": {"head": 0.5}, "expert_load": [0.25, 0.75]}
    assert numbers(row) == {"loss": 2.0, "update_norms/head": 0.5, "expert_load/0": 0.25, "expert_load/1": 0.75}
    assert parameters({"model": {"layers": 2, "pattern": None}}) == {"model.layers": "2", "model.pattern": "None"}
