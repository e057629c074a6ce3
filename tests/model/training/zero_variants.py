"""Variants of training, all on the same batches, for test_engine_truth.py; each runs in the ranks of a RankPool."""

import json
import math
import tempfile
from functools import partialmethod
from itertools import product
from pathlib import Path
from typing import Any

import architecture_fixtures as shapes
import torch
import torch.distributed as dist
from pairs import all_pairs
from safetensors.torch import save_file
from torch import nn

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.rules import check
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines import deepspeed_settings
from sluice.model.training.engines.build import build_engine
from sluice.model.training.engines.engine import StepOutcome
from sluice.model.training.optimization.optimizer import set_learning_rate


def _small(**choices: Any) -> TransformerConfig:
    return shapes.shape({"hidden_size": 16, "context": 12, **choices})


SHAPES = {
    # As the laptop's model: every combination has a window and a full layer.
    "llama": _small(intermediate_size=24, qk_norm=True, pattern=("window", "attention"), window=2),
    # Three layers: a pipeline's stages are unequal.
    "biased": _small(**shapes.DECODERS["gpt2"], layers=3, tie_embeddings=False),
    "relative": _small(**shapes.DECODERS["relative"]),
    "mixture": _small(intermediate_size=16, mixture={"experts": 4, "shared": 1, "balance_weight": 0, "z_weight": 0}),
    # The routers' losses are means over a micro-batch: the reference splits its batches alike.
    "routed": _small(intermediate_size=16, mixture={"experts": 4, "shared": 1, "balance_weight": 0.2, "z_weight": 0.1}),
    "hybrid": _small(**shapes.DECODERS["hybrid"]),
    "translator": _small(**shapes.ENCODER_DECODERS["t5"]),
    "encoder": _small(**shapes.ENCODERS["bert"]),
    "alibi": _small(**shapes.DECODERS["alibi"]),
    # As Gemma 3: norms on both sides, stored less one, and two rotations.
    "sandwich": _small(
        **shapes.DECODERS["sandwich"], window=2, pattern=("window", "attention"), window_rope_theta=50.0
    ),
    "parallel": _small(**{**shapes.DECODERS["parallel"], "sublayers": "parallel_one_norm", "rope_fraction": 0.5}),
}
STEPS, BATCH = 4, 8
DISCARDED, NOT_FINITE, OTHER_SPLIT = 1, 2, 3
"""Steps before which a gradient, of shorter rows, is accumulated and forgotten, or is not finite; and one step whose
micro-batches are smaller and more, as under a schedule of batch sizes.
"""

Settings = dict[str, Any]


def config_of(variant: Settings, workers: int) -> PretrainConfig:
    settings = {key: value for key, value in variant.items() if key not in ("shape", "documents", "backend")}
    clip = None if variant.get("optimizer") == "muon" else 0.5
    rate = {"learning_rate": 1e-3} if variant.get("optimizer") == "lion" else {}
    return PretrainConfig(
        **{"workers": workers, "batch_size": BATCH, "steps": STEPS, "gradient_clip": clip, **rate, **settings}
    )


def shape_of(variant: Settings) -> TransformerConfig:
    return SHAPES[variant.get("shape", "llama")]


WAYS: dict[str, Settings] = {"data": {}, "pipeline": {"pipeline_stages": 2}, "tensor": {"tensor_parallel": 2}}
"""Layouts of two workers."""


def every_combination() -> dict[str, Settings]:
    """All of ZeRO stage x pipeline x tensor x type x checkpointing x accumulation that two workers may train by."""
    found: dict[str, Settings] = {}
    choices = product(WAYS, (0, 1, 2, 3), ("fp32", "bf16"), ("none", "selective", "full"), (1, 4))
    for way, stage, dtype, checkpointing, micros in choices:
        rows = BATCH // 2 if way == "data" else BATCH
        settings = WAYS[way] | {
            "zero_stage": stage,
            "dtype": dtype,
            "activation_checkpointing": checkpointing,
            "micro_batch_size": rows // micros,
        }
        if _is_legal(settings):
            found[f"{way}-zero{stage}-{dtype}-{checkpointing}-by{micros}"] = settings
    return found


def _is_legal(variant: Settings) -> bool:
    try:
        check(config_of(variant, 2), shape_of(variant), cuda=False)
    except ValueError:
        return False
    return True


def _others() -> dict[str, Settings]:
    """Optimizers, offload, shapes of model, z-loss, isolated documents and compilation, where they may differ."""
    found: dict[str, Settings] = {}
    for stage in (0, 1, 2, 3):
        for optimizer, micro in (("muon", 4 if stage == 3 else 1), ("lion", 4)):
            found[f"{optimizer}-zero{stage}"] = {
                "optimizer": optimizer,
                "zero_stage": stage,
                "micro_batch_size": micro,
            }
    for stage in (1, 2, 3):
        found[f"zero{stage}-offload"] = {"zero_stage": stage, "offload": "optimizer", "micro_batch_size": 2}
    found["zero3-offload-all"] = {"zero_stage": 3, "offload": "all", "micro_batch_size": 2}
    found["muon-zero2-offload"] = found["zero2-offload"] | {"optimizer": "muon"}
    found["muon-zero3-offload"] = found["zero3-offload"] | {"optimizer": "muon"}
    for shape in ("biased", "mixture", "hybrid", "translator", "encoder"):
        for stage in (1, 3):
            found[f"{shape}-zero{stage}"] = {"shape": shape, "zero_stage": stage, "micro_batch_size": 2}
    for stage in (1, 2, 3):
        found[f"routed-zero{stage}"] = {"shape": "routed", "zero_stage": stage, "micro_batch_size": 2}
    found["sandwich-zero3"] = {"shape": "sandwich", "zero_stage": 3, "micro_batch_size": 2}
    for shape in ("hybrid", "encoder", "biased", "sandwich"):
        found[f"pipeline-{shape}"] = {"shape": shape, "pipeline_stages": 2, "micro_batch_size": 2}
    found["pipeline-muon"] = {"pipeline_stages": 2, "optimizer": "muon", "micro_batch_size": 2}
    found["pipeline-documents"] = {"pipeline_stages": 2, "documents": True, "micro_batch_size": 2}
    found["pipeline-z"] = {"pipeline_stages": 2, "z_loss": 0.01, "micro_batch_size": 2}
    found["zero3-z"] = {"zero_stage": 3, "z_loss": 0.01, "micro_batch_size": 2}
    for how, choice in (("full", {"activation_checkpointing": "full"}), ("pipeline", {"pipeline_stages": 2})):
        compiled = {"compile": True, "micro_batch_size": 4, **choice}
        # The compiler takes 30 s of processor time for each; a backend that only traces shows all but its kernels.
        found[f"compile-{how}"] = compiled
        found[f"traced-{how}"] = compiled | {"backend": "aot_eager"}
    for shape in ("biased", "relative", "alibi", "translator", "encoder", "sandwich", "parallel"):
        found[f"tensor-{shape}"] = {"tensor_parallel": 2, "shape": shape, "micro_batch_size": 2}
    found["tensor-lion"] = {"tensor_parallel": 2, "optimizer": "lion", "micro_batch_size": 2}
    return found


COMBINATIONS, OTHERS = every_combination(), _others()
VARIANTS = COMBINATIONS | OTHERS


def _choices(variant: Settings) -> dict[str, Any]:
    """Settings of a combination, by the names that DeepSpeed's documentation uses."""
    return {
        "way": _way(variant),
        "stage": variant["zero_stage"],
        "dtype": variant["dtype"],
        "checkpointing": variant["activation_checkpointing"],
        "micro_batch": variant["micro_batch_size"] == (BATCH // 2 if _way(variant) == "data" else BATCH),
    }


def _way(variant: Settings) -> str:
    return "pipeline" if "pipeline_stages" in variant else "tensor" if "tensor_parallel" in variant else "data"


def _features(variant: Settings) -> dict[str, Any]:
    """Settings of another variant besides the ZeRO stage."""
    names = ("shape", "optimizer", "offload", "documents", "z_loss", "compile")
    return {"way": _way(variant)} | {name: variant.get(name) for name in names}


def cover() -> list[str]:
    """Variants that `make test` trains: all pairs of choices, and every other feature at the highest ZeRO stage."""
    others = all_pairs({name: _features(OTHERS[name]) for name in reversed(OTHERS) if not name.startswith("compile")})
    return [*all_pairs({name: _choices(each) for name, each in COMBINATIONS.items()}), *reversed(others)]


FOUR_WORKERS: dict[str, Settings] = {
    "pipeline-data": {"pipeline_stages": 2, "zero_stage": 1, "micro_batch_size": 2},
    "pipeline-tensor": {"pipeline_stages": 2, "tensor_parallel": 2, "zero_stage": 1, "micro_batch_size": 2},
    "tensor-data": {"tensor_parallel": 2, "zero_stage": 1, "micro_batch_size": 2},
    "tensor-data-zero2": {"tensor_parallel": 2, "zero_stage": 2, "micro_batch_size": 2},
}


def fresh_model(shape: TransformerConfig) -> Transformer:
    model = Transformer(shape)
    initialize(model, 3)
    return model


def global_batch(step: int, variant: Settings) -> Batch:
    """[8, 12]; some targets do not count, and unequally many a row, so a mean of means would be wrong."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(61, (BATCH, 13), generator=generator)
    mask = torch.rand(BATCH, 12, generator=generator) < torch.linspace(0.1, 0.9, BATCH)[:, None]
    mask[:, 0] = True
    documents = (torch.arange(12) >= 5).long().expand(BATCH, -1).contiguous() if variant.get("documents") else None
    source = source_mask = None
    if shape_of(variant).kind == "encoder-decoder":
        source = torch.randint(61, (BATCH, 7), generator=generator)
        source_mask = torch.arange(7) < torch.arange(BATCH)[:, None] % 4 + 4
    return Batch(ids[:, :-1], ids[:, 1:], mask, documents, source, source_mask)


def rows_at_once(config: PretrainConfig, step: int) -> int:
    """Rows of a step's micro-batches."""
    return 1 if step == OTHER_SPLIT and not config.compile else config.micro_batch_size


def shorter(batch: Batch) -> Batch:
    fields = (batch.ids, batch.targets, batch.mask, batch.documents)
    return Batch(*(None if each is None else each[:, :8] for each in fields), batch.source, batch.source_mask)


def scale(step: int) -> float:
    return (step + 1) / 3 if step < 3 else 1.0


def train_variant(name: str, variant: Settings, world: int, out: Path) -> dict[str, Any]:
    config = config_of(variant, world)
    model = fresh_model(shape_of(variant)).to(torch.bfloat16 if config.dtype == "bf16" else torch.float32)
    if "backend" in variant:
        nn.Module.compile = partialmethod(nn.Module.compile, backend=variant["backend"])
    with tempfile.TemporaryDirectory() as extensions:
        engine = build_engine(model, config, Path(extensions))
    rows = BATCH // engine.world

    def own(step: int) -> Batch:
        return global_batch(step, variant).split(rows)[engine.rank]

    found: dict[str, Any] = {"losses": [], "norms": [], "applied": []}
    held_out = global_batch(1000, variant)
    each = torch.empty(own(1000).targets.shape)
    found["before"] = float(engine.all_reduce_sum(engine.nll_sum(own(1000), each))) / held_out.tokens
    found["by_place"] = engine.all_reduce_sum(each.sum(dim=0)).tolist()
    for step in range(STEPS):
        if step == DISCARDED:
            # Every other shape is compiled anew, for many seconds.
            other = own(step + 500) if config.compile else shorter(own(step + 500))
            engine.forward_backward(other.split(config.micro_batch_size), 10)
            engine.discard()
        if step == NOT_FINITE:
            engine.forward_backward(own(step + 500).split(config.micro_batch_size), 0)  # over no tokens
            found["refused"] = not math.isfinite(engine.gradient_norm()) and engine.step() is StepOutcome.NOT_FINITE
        set_learning_rate(engine.optimizer, scale(step))
        tokens = int(engine.all_reduce_sum(torch.tensor(own(step).tokens)))
        nats = engine.forward_backward(own(step).split(rows_at_once(config, step)), tokens)
        found["losses"].append(float(engine.all_reduce_sum(nats)) / tokens)
        found["norms"].append(engine.gradient_norm())
        found["by_group"] = engine.gradient_norms()
        before = {key: each.detach().clone() for key, each in engine.weights().items()}
        found["applied"].append(engine.step() is StepOutcome.APPLIED)
        found["moved"] = engine.update_norms(before)
        load = engine.expert_load()
        found["load"] = None if load is None else load.shares.tolist()
    found["compiled"] = sum(torch._dynamo.utils.counters["frames"].values()) if config.compile else 0
    found["after"] = float(engine.all_reduce_sum(engine.nll_sum(own(1000)))) / held_out.tokens
    weights = engine.full_weights()
    if dist.get_rank() == 0:
        save_file(
            {key: each.float().clone().contiguous() for key, each in weights.items()}, out / f"{name}.safetensors"
        )
    return found


def train_in_a_rank(name: str, out: str) -> None:
    """Train one variant as a rank of the environment; rank 0 leaves `name`.json and `name`.safetensors in `out`."""
    torch.set_num_threads(1)
    deepspeed_settings.BUCKET_ELEMENTS = 10_000  # filling those of a real model would take most of the time
    deepspeed_settings.PERSISTENT_ELEMENTS = 0  # or ZeRO 3 would share out nothing of so small a model
    dist.init_process_group("gloo")
    found = train_variant(name, (VARIANTS | FOUR_WORKERS)[name], dist.get_world_size(), Path(out))
    if dist.get_rank() == 0:
        Path(out, f"{name}.json").write_text(json.dumps(found))
    dist.barrier()
