"""Two ranks save, go on, and go on again from what they saved: for test_resharding.py, in a RankPool."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from training_fixtures import MODEL

from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.resharding import checkpoint_names, read_average, restore, take_snapshot
from sluice.model.training.checkpointing.saver import Saver
from sluice.model.training.engines.build import build_engine
from sluice.model.training.engines.distributed import DistributedEngine
from sluice.model.training.engines.engine import StepOutcome
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.optimization.optimizer import build_optimizer, set_learning_rate
from sluice.model.training.pretrain import PretrainReport, pretrain
from sluice.model.training.worker import join_group

CONFIG = TransformerConfig(
    vocab_size=61, hidden_size=16, layers=2, heads=2, kv_heads=2, intermediate_size=24, context=12
)
SAVED, STEPS, BATCH = 3, 6, 8
OPTIMIZER_SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "gradient_clip": 0.5, "weight_decay": 0.1},
    "muon": {"optimizer": "muon", "weight_decay": 0.1},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "zero0": {"zero_stage": 0},
    "zero1": {"zero_stage": 1},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3},
    "offload": {"zero_stage": 2, "offload": "optimizer"},
    "bf16": {"zero_stage": 1, "dtype": "bf16"},
    "pipeline": {"zero_stage": 1, "pipeline_stages": 2},
    "tensor2": {"zero_stage": 1, "tensor_parallel": 2},
}
VARIANTS = {
    **{f"adamw-{layout}": ("adamw", layout) for layout in LAYOUTS},
    **{f"muon-{layout}": ("muon", layout) for layout in ("zero0", "zero1", "zero2", "zero3")},
}
RESHARDED = [
    *((f"adamw-{a}", f"adamw-{b}") for a, b in (("zero1", "zero0"), ("zero0", "zero3"), ("zero3", "zero2"))),
    *((f"adamw-{a}", f"adamw-{b}") for a, b in (("zero2", "offload"), ("offload", "pipeline"), ("zero3", "tensor2"))),
    ("muon-zero1", "muon-zero3"),
    ("muon-zero3", "muon-zero2"),
    ("muon-zero2", "muon-zero0"),
]
"""Writer of the checkpoint, and the run that resumes from it."""
WHOLE_RUN: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": BATCH,
    "micro_batch_size": 2,
    "warmup_steps": 1,
    "checkpoint_every": SAVED,
    "validate_every": STEPS,
    "validation_batches": 1,
}
FROM_ONE = ("adamw-zero1", "adamw-zero3", "adamw-pipeline", "adamw-tensor2")


def settings(variant: str, world: int) -> PretrainConfig:
    optimizer, layout = VARIANTS[variant]
    given = {"batch_size": BATCH, "micro_batch_size": BATCH // 2, "steps": STEPS, "workers": world}
    return PretrainConfig(**given | OPTIMIZER_SETTINGS[optimizer] | LAYOUTS[layout])


def global_batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(CONFIG.vocab_size, (BATCH, CONFIG.context + 1), generator=generator)
    return Batch(ids[:, :-1], ids[:, 1:])


def fresh_model(seed: int) -> Transformer:
    model = Transformer(CONFIG)
    initialize(model, seed)
    return model


def engine_of(variant: str, seed: int) -> DistributedEngine:
    config = settings(variant, dist.get_world_size())
    model = fresh_model(seed).to(torch.bfloat16 if config.dtype == "bf16" else torch.float32)
    with tempfile.TemporaryDirectory() as extensions:
        return build_engine(model, config, Path(extensions))


def local_engine(optimizer: str, seed: int) -> LocalEngine:
    config = PretrainConfig(
        **{"workers": 1, "batch_size": BATCH, "micro_batch_size": BATCH} | OPTIMIZER_SETTINGS[optimizer]
    )
    model = fresh_model(seed)
    return LocalEngine(model, build_optimizer(model, config), config.gradient_clip)


def advance(engine: DistributedEngine | LocalEngine, first: int, last: int) -> list[float]:
    """Train on the same global batches whatever the engine; losses by step."""
    losses = []
    rows = BATCH // engine.world
    for step in range(first, last):
        set_learning_rate(engine.optimizer, 5 / (step + 1))
        batch = global_batch(step % 2)
        own = Batch(batch.ids[engine.rank * rows :][:rows], batch.targets[engine.rank * rows :][:rows])
        nats = engine.forward_backward(own.split(BATCH // 2), batch.tokens)
        losses.append(float(engine.all_reduce_sum(nats)) / batch.tokens)
        assert engine.step() is StepOutcome.APPLIED
    return losses


def stepped(engine: DistributedEngine | LocalEngine) -> Any:
    """The optimizer as DeepSpeed wraps it."""
    return engine._engine.optimizer if isinstance(engine, DistributedEngine) else engine.optimizer


def average_of(engine: DistributedEngine | LocalEngine) -> dict[str, torch.Tensor]:
    """Something that is kept as an average of the weights would be."""
    parameters = engine.model.named_parameters()
    return {name: 2 * getattr(each, "ds_tensor", each).detach().float() for name, each in parameters}


def save(engine: DistributedEngine | LocalEngine, folder: Path) -> None:
    average = average_of(engine)
    rank, world = (dist.get_rank(), dist.get_world_size()) if isinstance(engine, DistributedEngine) else (0, 1)
    snapshot = take_snapshot(checkpoint_names(engine.model), stepped(engine), replica=engine.rank, average=average)
    with Saver(folder, rank=rank, world=world) as saver:
        saver.save(SAVED, snapshot, [{"step": SAVED}], {})


def load(engine: DistributedEngine | LocalEngine, folder: Path) -> None:
    checkpoint = checkpoints.open_checkpoint(checkpoints.checkpoint_path(folder, SAVED))
    restore(checkpoint_names(engine.model), stepped(engine), checkpoint.shards)


def go_on(reader: str, folder: Path) -> list[float]:
    # Another seed: all that it computes with must come from the checkpoint.
    engine = engine_of(reader, seed=4)
    load(engine, folder)
    return advance(engine, SAVED, STEPS)


def save_and_go_on(variant: str, out: Path) -> dict[str, list[float]]:
    engine = engine_of(variant, seed=3)
    advance(engine, 0, SAVED)
    save(engine, out / variant)
    shards = checkpoints.open_checkpoint(checkpoints.checkpoint_path(out / variant, SAVED)).shards
    read_back, average = read_average(checkpoint_names(engine.model), shards), average_of(engine)
    assert read_back.keys() == average.keys()
    assert all(torch.equal(read_back[name], each) for name, each in average.items())
    undisturbed = advance(engine, SAVED, STEPS)
    return {f"{variant} undisturbed": undisturbed, f"{variant} resumed": go_on(variant, out / variant)}


def pretrained(folder: Path, corpus: Path, **layout: Any) -> PretrainReport:
    """A whole run, from whatever checkpoints of it are in `folder`, in this layout."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return pretrain(
        PretrainConfig(**WHOLE_RUN | layout),
        ModelConfig(**MODEL),
        corpus / "pack",
        corpus / "tokenizer",
        folder / "out",
        folder / "checkpoints",
        any_layout=True,
    )


def _split(variant: str) -> str:
    layout = VARIANTS[variant][1]
    return layout if layout in {"pipeline", "tensor2"} else "zero"


def save_and_go_on_in_all_layouts(*folders: str) -> None:
    """`out`: what was trained, in `single` half a run already; `start`: a checkpoint of one process to go on from."""
    out, start, corpus = map(Path, folders)
    join_group()
    pretrained(out / "pair", corpus, workers=2, zero_stage=2)
    pretrained(out / "single", corpus, workers=2, zero_stage=1)
    losses: dict[str, list[float]] = {}
    # DeepSpeed does not forget the groups of a pipeline or of tensor parallelism, so those come last.
    for last in ("zero", "pipeline", "tensor2"):
        for variant in (each for each in VARIANTS if _split(each) == last):
            losses |= save_and_go_on(variant, out)
        for writer, reader in (each for each in RESHARDED if _split(each[1]) == last):
            losses[f"{writer} to {reader}"] = go_on(reader, out / writer)
        for reader in (each for each in FROM_ONE if _split(each) == last):
            losses[f"one process to {reader}"] = go_on(reader, start)
    if dist.get_rank() == 0:
        (out / "losses.json").write_text(json.dumps(losses))
    dist.barrier()
