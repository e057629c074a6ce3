"""The planner's arithmetic, against published totals and against the model itself."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.architecture.cache import KVCache
from model.architecture.config import TransformerConfig
from model.architecture.loss import cross_entropy_sum
from model.architecture.transformer import Transformer
from model.budget import (
    activations_bytes,
    count_flops,
    count_parameters,
    kv_cache_size,
    measure_matmul_flops,
    plan,
    worker_memory,
)
from model.config import ModelConfig, PretrainConfig

LLAMA_7B = TransformerConfig(
    vocab_size=32_000,
    hidden_size=4_096,
    layers=32,
    heads=32,
    kv_heads=32,
    intermediate_size=11_008,
    context=2_048,
    tie_embeddings=False,
)
SMALL = TransformerConfig.from_settings(ModelConfig(hidden_size=64, layers=3, heads=4, kv_heads=2, context=32), 300)


@pytest.mark.parametrize(
    ("change", "total"),
    [
        ({}, 6_738_415_616),  # LLaMA 7B
        # Llama 3 8B and Llama 3.2 1B
        ({"vocab_size": 128_256, "kv_heads": 8, "intermediate_size": 14_336}, 8_030_261_248),
        (
            {
                "vocab_size": 128_256,
                "hidden_size": 2_048,
                "layers": 16,
                "kv_heads": 8,
                "intermediate_size": 8_192,
                "tie_embeddings": True,
            },
            1_235_814_400,
        ),
    ],
)
def test_published_totals(change: dict[str, Any], total: int) -> None:
    assert count_parameters(LLAMA_7B.model_copy(update=change)).total == total


@pytest.mark.parametrize("shape", [LLAMA_7B, SMALL, SMALL.model_copy(update={"kv_heads": 1, "tie_embeddings": False})])
def test_the_count_is_the_models_own(shape: TransformerConfig) -> None:
    with torch.device("meta"):
        model = Transformer(shape)
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    parameters = count_parameters(shape)

    def of(*parts: str) -> int:
        return sum(size for name, size in sizes.items() if any(part in name for part in parts))

    assert parameters.total == sum(sizes.values())
    assert parameters.embedding == of("embedding.")
    assert parameters.attention == of("attention.query", "attention.key", "attention.value", "attention.output")
    assert parameters.feedforward == of("feedforward.gate", "feedforward.up", "feedforward.down")
    assert parameters.norms == of("norm.")
    assert parameters.head == of("head.")
    assert parameters.non_embedding == parameters.total - parameters.embedding - parameters.head


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_flops_are_what_torch_counts(kv_heads: int) -> None:
    shape = SMALL.model_copy(update={"kv_heads": kv_heads})
    ids = torch.zeros(2, shape.context, dtype=torch.int64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Transformer(shape)(ids)
    flops = count_flops(shape)
    # torch's counter does not know the CPU's attention kernel: it counts all the other products.
    assert counter.get_total_flops() == (flops.forward - flops.attention_scores) * ids.numel()
    # Under the causal mask token t meets t+1 keys: as many pairs as a triangle has.
    pairs = sum(position + 1 for position in range(shape.context))
    assert flops.attention_scores * shape.context == pairs * 2 * 2 * shape.heads * shape.head_size * shape.layers
    assert flops.training == 3 * flops.forward


def test_6n_is_near_for_a_short_context_and_far_for_a_long_one() -> None:
    tied = LLAMA_7B.model_copy(update={"tie_embeddings": True})
    short, long = (count_flops(tied.model_copy(update={"context": context})) for context in (128, 131_072))
    assert short.training == pytest.approx(short.training_6n, rel=0.01)
    assert long.training > 3 * long.training_6n


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_kv_cache_is_as_large_as_the_real_one(dtype: Any, torch_dtype: torch.dtype) -> None:
    size = kv_cache_size(SMALL, dtype)
    assert KVCache(SMALL, 1, dtype=torch_dtype).size_bytes == size.context_bytes == SMALL.context * size.token_bytes


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_activations_are_what_autograd_keeps(kv_heads: int) -> None:
    shape = SMALL.model_copy(update={"kv_heads": kv_heads})
    model = Transformer(shape)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.zeros(16, shape.context, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cross_entropy_sum(model, ids, ids)
    measured = sum(storage.nbytes() for storage in kept.values())
    assert activations_bytes(shape, "fp32", 16) == pytest.approx(measured, rel=0.05)


def test_zero_shares_out_one_kind_of_state_a_stage() -> None:
    # The ZeRO paper's example (figure 1): bf16 Adam, K = 12, 7.5 billion weights on 64 workers.
    run = PretrainConfig(workers=64, batch_size=64, micro_batch_size=1)
    shape = LLAMA_7B
    weights = count_parameters(shape).total
    expected = [16, 4 + 12 / 64, 2 + 14 / 64, 16 / 64]
    for stage, bytes_per_weight in enumerate(expected):
        memory = worker_memory(shape, "bf16", stage, run)
        states = memory.total_bytes - memory.activations_bytes
        assert states == pytest.approx(weights * bytes_per_weight, rel=1e-6)


def test_muon_keeps_one_moment_of_the_layers_matrices() -> None:
    adam, muon = (
        worker_memory(SMALL, "fp32", 0, PretrainConfig(workers=1, optimizer=name)).optimizer_bytes
        for name in ("adamw", "muon")
    )
    parameters = count_parameters(SMALL)
    assert adam - muon == 4 * (parameters.attention + parameters.feedforward)


def test_the_plan_of_a_run() -> None:
    run = PretrainConfig(steps=100, batch_size=32, workers=2, micro_batch_size=16)
    found = plan(SMALL, run, matmul_flops_per_s=1e9, fraction=0.25)
    assert found.tokens == 100 * 32 * 32
    assert found.compute_optimal_tokens == 20 * found.parameters.total
    assert found.forecast is not None
    assert found.forecast.total_s == pytest.approx(found.tokens * found.flops.training / (1e9 * 0.25))
    assert found.forecast.tokens_per_s * found.forecast.step_s == pytest.approx(found.tokens_per_step)
    assert [(row.dtype, row.zero_stage) for row in found.memory][:5] == [
        ("fp32", 0),
        ("fp32", 1),
        ("fp32", 2),
        ("fp32", 3),
        ("bf16", 0),
    ]
    assert plan(SMALL, run).forecast is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"matmul_flops_per_s": 0.0}, "matmul_flops_per_s 0.0"),
        ({"matmul_flops_per_s": float("nan")}, "matmul_flops_per_s nan"),
        ({"fraction": 1.5}, "fraction 1.5"),
    ],
)
def test_an_impossible_assumption_is_refused(arguments: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(SMALL, PretrainConfig(), **arguments)


def test_measuring_leaves_the_thread_count_alone() -> None:
    before = torch.get_num_threads()
    assert measure_matmul_flops("fp32", threads=1, seconds=0.01) > 1e8
    assert torch.get_num_threads() == before
