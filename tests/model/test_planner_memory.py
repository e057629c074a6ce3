"""Memory in training: what autograd keeps of the model itself, how ZeRO and pipelines share it out, what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architecture_fixtures import CONTEXT, DECODERS, ENCODER_DECODERS, ENCODERS, shape, shapes, tokens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.model.architecture import kernels, loss
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.kernels import blocked
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.layout import Layout, layout_of
from sluice.model.parallelism.stages import split_stages
from sluice.model.parallelism.tensor_parallel import split_model
from sluice.model.planner import activations
from sluice.model.planner.activations import Kernel, default_kernel, layer_bytes, outer_bytes
from sluice.model.planner.base import Dtype
from sluice.model.planner.memory import DeviceMemory, device_memory
from sluice.model.planner.parameters import count_parameters
from sluice.model.planner.plan import planned_run
from sluice.model.planner.settings import PlanConfig
from sluice.model.planner.weights import list_layers, pipeline_stages

NAMED = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}
TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCH, LENGTH = 4, 64


def kept(config: TransformerConfig, dtype: Dtype, kernel: Kernel | None) -> int:
    """Bytes that autograd keeps of a micro-batch, the weights themselves left out."""
    model = Transformer(config).to(TORCH[dtype])
    model.kernel = "sdpa" if kernel == "flash" else kernel
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage
        return tensor

    ids = tokens(BATCH, LENGTH)
    beside = {"source": ids} if config.kind == "encoder-decoder" else {}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cross_entropy_sum(model, ids, ids, **beside)
    return sum(storage.nbytes() for storage in found.values())


def planned(config: TransformerConfig, dtype: Dtype, kernel: Kernel | None) -> int:
    inner = sum(
        layer_bytes(config, layer, dtype=dtype, batch=BATCH, length=LENGTH, kernel=kernel, on_cpu=True)
        for layer in list_layers(config)
    )
    return inner + outer_bytes(config, dtype=dtype, batch=BATCH, length=LENGTH)


# Estimates: what routing and scanning keep depends on how they are computed. All others are counted tensor by tensor.
ESTIMATED = ("mixture", "switch", "mamba", "hybrid", "hybrid_mixture")
COUNTED = ("llama", "mqa", "qk_norm", "gpt2", "post_norm", "window", "alibi", "bert", "modern_encoder", "vaswani")


@pytest.mark.parametrize("name", [*COUNTED, *ESTIMATED])
@pytest.mark.parametrize(
    ("dtype", "kernel"), [("fp32", "blocked"), ("bf16", "flash"), ("fp32", "reference"), ("fp32", None), ("bf16", None)]
)
def test_activations_are_what_autograd_keeps(name: str, dtype: Dtype, kernel: Kernel | None) -> None:
    config = shape({**NAMED[name], "hidden_size": 64, "context": LENGTH, "vocab_size": 300})
    tolerance = 0.1 if name in ESTIMATED else 0.05
    assert planned(config, dtype, kernel) == pytest.approx(kept(config, dtype, kernel), rel=tolerance)


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("name", sorted(NAMED.keys() - {*COUNTED, *ESTIMATED}))
def test_so_they_are_on_the_kernels_that_training_takes(name: str, dtype: Dtype) -> None:
    config = shape({**NAMED[name], "hidden_size": 64, "context": LENGTH, "vocab_size": 300})
    assert planned(config, dtype, None) == pytest.approx(kept(config, dtype, None), rel=0.05)


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {"attention_dropout": 0.1}),
        ("llama", {"attention_dropout": 0.1, "window": 9, "pattern": ("window",)}),
        ("llama", {"dropout": 0.1, "attention_dropout": 0.1, "attention_soft_cap": 5.0}),
        ("alibi", {"attention_dropout": 0.1}),
        ("alibi", {"window": 9, "pattern": ("window",)}),
        ("bert", {"attention_dropout": 0.1}),
        ("t5", {"attention_dropout": 0.1}),
        ("vaswani", {"attention_dropout": 0.1}),
        ("vaswani", {"window": 9, "pattern": ("window",)}),
    ],
)
def test_so_they_are_under_dropout_and_in_windows(name: str, options: dict[str, object], dtype: Dtype) -> None:
    config = shape({**NAMED[name], **options, "hidden_size": 64, "context": LENGTH, "vocab_size": 300})
    assert planned(config, dtype, None) == pytest.approx(kept(config, dtype, None), rel=0.06)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "options", [{}, {"attention_soft_cap": 5.0}, {"attention_dropout": 0.1, "attention_soft_cap": 5.0}]
)
def test_the_reference_keeps_its_scores_in_float32(dtype: Dtype, options: dict[str, float]) -> None:
    config = shape({**NAMED["llama"], "hidden_size": 64, "context": LENGTH, "vocab_size": 300, **options})
    assert planned(config, dtype, "reference") == pytest.approx(kept(config, dtype, "reference"), rel=0.02)


@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("mamba", "relative", "t5")])
@pytest.mark.parametrize("dtype", TORCH)
def test_the_default_kernel_is_the_one_that_training_takes(name: str, dtype: Dtype) -> None:
    config = shape(NAMED[name])
    kernels.choices().clear()
    model, ids = Transformer(config).to(TORCH[dtype]), tokens(1, CONTEXT)
    cross_entropy_sum(model, ids, ids, **({"source": ids} if config.kind == "encoder-decoder" else {}))
    asked = [(kind, config.kind != "encoder", False) for kind in config.layer_kinds if kind != "state_space"]
    asked += [(kind, False, False) for kind in config.encoder_kinds]
    asked += [("attention", False, True)] if config.encoder_kinds else []
    planned = {
        default_kernel(
            config,
            dtype,
            CONTEXT,
            on_cpu=True,
            causal=causal,
            window=config.window if kind == "window" else None,
            is_cross=is_cross,
        )
        for kind, causal, is_cross in asked
    }
    assert planned == {"flash" if kernel == "sdpa" else kernel for kernel, _ in kernels.choices()}


@pytest.mark.parametrize(
    ("options", "dtype", "length", "kernel"),
    [
        ({}, "bf16", 512, "flash"),
        # Of SDPA's fused kernels only FlashAttention knows heads that share keys and values; it has no mask.
        ({}, "fp32", 512, "repeated"),
        ({"kv_heads": 4}, "fp32", 512, "flash"),
        ({"positions": "alibi"}, "bf16", 512, "repeated"),
        ({"positions": "alibi", "kv_heads": 4}, "bf16", 512, "flash"),
        ({"positions": "relative"}, "bf16", 512, "repeated"),
        ({"window": 9}, "bf16", 512, "repeated"),
        ({"window": 512}, "bf16", 512, "flash"),
        # FlexAttention takes masks of long sequences.
        ({"window": 9}, "bf16", 1024, "flash"),
        ({"window": 9, "attention_dropout": 0.1}, "bf16", 1024, "repeated"),
        ({"attention_dropout": 0.1}, "bf16", 1024, "flash"),
        ({"attention_soft_cap": 5.0}, "bf16", 512, "reference"),
        ({"attention_soft_cap": 5.0}, "bf16", 1024, "flash"),
        ({"attention_soft_cap": 5.0, "attention_dropout": 0.1}, "bf16", 1024, "reference"),
    ],
)
def test_an_accelerators_kernel_is_what_the_model_would_choose_there(
    options: dict[str, Any], dtype: Dtype, length: int, kernel: Kernel
) -> None:
    config = shape({"hidden_size": 64, **options})
    found = default_kernel(config, dtype, length, on_cpu=False, causal=True, window=config.window)
    assert found == kernel


def test_the_planners_sizes_of_blocks_and_chunks_are_those_of_the_code() -> None:
    assert activations._BLOCKED_ROWS == {
        "fp32": blocked.BLOCK,
        "bf16": 2 * blocked.BLOCK,
        "fp16": 2 * blocked.BLOCK,
    }
    assert activations._CHUNK_LOGITS == loss._CHUNK_LOGITS
    assert activations._ACCELERATOR_CHUNK_LOGITS == loss._ACCELERATOR_CHUNK_LOGITS


@pytest.mark.parametrize("tensor", [1, 4])
def test_a_gpt_layer_keeps_what_korthikanti_counted(tensor: int) -> None:
    # arXiv 2205.05198, equation 2, without the scores that a fused kernel never keeps: s b h (10 + 24 / t).
    config = shape({**NAMED["gpt2"], "hidden_size": 1024, "intermediate_size": 4096, "dropout": 0.1})
    found = layer_bytes(config, ("decoder", 0), dtype="bf16", batch=3, length=LENGTH, tensor=tensor)
    statistics = 2 * 2 * 4 * 3 * LENGTH
    assert found - statistics == 3 * LENGTH * 1024 * (10 + 24 // tensor)


def memory(config: TransformerConfig, stage: int = 0, **change: int) -> DeviceMemory:
    layout = Layout(zero_stage=stage, **change)  # type: ignore[arg-type]
    return device_memory(config, layout, dtype="bf16", optimizer="adamw", micro_batch_size=1, micro_batches=8)


def test_zero_shares_out_one_kind_of_state_a_stage() -> None:
    # The ZeRO paper's example (arXiv 1910.02054, figure 1): bf16 Adam, K = 12, 7.5 billion weights on 64 devices.
    config = shape({"hidden_size": 256, "layers": 4})
    weights = count_parameters(config).total
    for stage, bytes_per_weight in enumerate([16, 4 + 12 / 64, 2 + 14 / 64, 16 / 64]):
        found = memory(config, stage, devices=64)
        states = found.parameters_bytes + found.gradients_bytes + found.optimizer_bytes
        assert states == pytest.approx(weights * bytes_per_weight, rel=1e-4)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("devices", [1, 4])
def test_offload_moves_what_the_stage_can_to_the_host(stage: int, devices: int) -> None:
    config = shape({})
    kept, optimizer, everything = (
        device_memory(
            config,
            Layout(devices=devices, zero_stage=stage),  # type: ignore[arg-type]
            dtype="bf16",
            optimizer="adamw",
            micro_batch_size=1,
            offload=offload,
        )
        for offload in ("none", "optimizer", "all")
    )
    assert kept.host_bytes == 0
    assert optimizer.host_bytes == (kept.optimizer_bytes if stage else 0)
    assert optimizer.total_bytes == kept.total_bytes - optimizer.host_bytes
    assert everything.host_bytes == optimizer.host_bytes + (kept.parameters_bytes if stage == 3 else 0)
    if stage == 3:
        # Weights come back to the device for as long as they are used.
        assert everything.parameters_bytes == 0 and everything.workspace_bytes >= kept.workspace_bytes > 0


def test_muon_keeps_one_moment_of_the_layers_matrices() -> None:
    config = shape({})
    adam, muon = (
        device_memory(config, Layout(), dtype="fp32", optimizer=name, micro_batch_size=1).optimizer_bytes
        for name in ("adamw", "muon")
    )
    assert adam == 8 * count_parameters(config).total
    assert adam - muon == 4 * count_parameters(config).matrices


@pytest.mark.parametrize("tie", [True, False])
def test_a_pipelines_stages_hold_the_model_once_and_a_tied_embedding_twice(tie: bool) -> None:
    config = shape({"layers": 4, "tie_embeddings": tie})
    held = [stage.weights for stage in pipeline_stages(config, 2)]
    total = sum(weight.size for stage in held for weight in stage)
    assert total == count_parameters(config).total + tie * config.vocab_size * config.hidden_size
    assert {weight.layer for weight in held[0]} == {None, ("decoder", 0), ("decoder", 1)}
    assert "norm.weight" in {weight.name for weight in held[1]}


def test_more_devices_hold_less_each_and_checkpointing_less_still() -> None:
    config = shape({"hidden_size": 64, "layers": 8, "heads": 8, "kv_heads": 4, "context": 512})
    alone = memory(config, devices=1).total_bytes
    assert memory(config, devices=4, tensor=4).total_bytes < alone
    assert memory(config, devices=4, pipeline=4).total_bytes < alone
    assert memory(config, 3, devices=4).total_bytes < alone
    kept, again = (
        device_memory(
            config, Layout(), dtype="bf16", optimizer="adamw", micro_batch_size=4, checkpointing=checkpointing
        )
        for checkpointing in (False, True)
    )
    assert again.activations_bytes < kept.activations_bytes / 3
    assert again.parameters_bytes == kept.parameters_bytes


def test_a_pipelines_first_stage_keeps_as_much_as_one_device_without() -> None:
    # Korthikanti et al., section 4.2.2: stages times fewer layers, and as many micro-batches in flight.
    config = shape({"layers": 8, "context": 512})
    alone = sum(layer_bytes(config, layer, dtype="bf16", batch=1, length=512) for layer in list_layers(config))
    first = memory(config, devices=4, pipeline=4)
    assert first.stage == 0 and first.activations_bytes == alone


@pytest.mark.parametrize("name", ["llama", "gpt2", "hybrid", "mamba", "bert", "modern_encoder"])
@pytest.mark.parametrize("stages", [2, 3, 5])
def test_a_pipeline_is_divided_as_the_trainer_divides_it(name: str, stages: int) -> None:
    options = {**NAMED[name], "layers": 5, "vocab_size": 300}
    if "pattern" in options:
        options["layers"] = 5 * len(options["pattern"])
    config = shape(options)
    bounds = split_stages(Transformer(config), stages)
    planned_layers = [[layer for _, layer in stage.layers] for stage in pipeline_stages(config, stages)]
    assert planned_layers == [list(each) for each in bounds]


@pytest.mark.parametrize("name", ["llama", "gpt2", "relative", "bert", "modern_encoder", "t5"])
def test_tensor_parallelism_divides_the_weights_that_the_trainer_splits(name: str) -> None:
    config = shape({**NAMED[name], "hidden_size": 64, "heads": 4, "kv_heads": 2, "layers": 2})
    model = Transformer(config)
    groups = SimpleNamespace(layout=Layout(devices=2, tensor=2), tensor_rank=1, tensor=None)
    split_model(model, groups)  # type: ignore[arg-type]
    held = memory(config, devices=2, tensor=2).parameters_bytes
    assert held == 2 * sum(weight.numel() for weight in model.parameters())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(config=shapes(), devices=st.integers(1, 12), stage=st.integers(0, 3), tensor=st.integers(1, 4), data=st.data())
def test_every_layout_is_planned_or_refused(
    config: TransformerConfig, devices: int, stage: int, tensor: int, data: st.DataObject
) -> None:
    pipeline = data.draw(st.integers(1, 3))
    degrees = PlanConfig(devices=devices, tensor=tensor, pipeline=pipeline, zero_stage=stage)  # type: ignore[arg-type]
    run = PretrainConfig(workers=1, batch_size=12 * 11 * 7 * 5, micro_batch_size=1)
    try:
        run = planned_run(config, run, degrees)
    except ValueError as error:
        assert "\n" not in str(error)
        assert devices % (tensor * pipeline) or tensor > 1 or pipeline > 1 or run.batch_size % devices
        return
    found = device_memory(config, layout_of(run), dtype="fp32", optimizer="adamw", micro_batch_size=1)
    parts = (found.parameters_bytes, found.gradients_bytes, found.optimizer_bytes, found.activations_bytes)
    assert found.total_bytes == sum(parts) + found.workspace_bytes
    assert min(parts) > 0
    if tensor == pipeline == 1 and stage < 3:
        assert found.parameters_bytes == 4 * count_parameters(config).total
