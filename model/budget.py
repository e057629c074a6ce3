"""What a run costs before it starts: parameters, FLOPs, memory and time, from the shape alone.

Everything but `measure_matmul_flops` is arithmetic over the configuration. FLOPs count a multiply and an add as two and
leave out element-wise work, as the papers do. Sizes are bytes, times are seconds.
"""

import time
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict

from model.architecture import causal
from model.architecture.config import TransformerConfig
from model.config import PretrainConfig

Dtype = Literal["fp32", "bf16"]

TOKENS_PER_PARAMETER = 20
"""Compute-optimal data for a model's size (Chinchilla, Hoffmann et al., arXiv 2203.15556)."""

_WEIGHT_BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2}
_TORCH_DTYPE: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
# A float32 master copy goes with bf16 weights (ZeRO, arXiv 1910.02054, section 3.1).
_MASTER_BYTES: dict[Dtype, int] = {"fp32": 0, "bf16": 4}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameters(_Record):
    """Number of weights by component."""

    embedding: int
    attention: int
    feedforward: int
    norms: int
    head: int
    """0 where the head is the embedding."""
    total: int
    non_embedding: int
    """Without embedding and head: the N of the scaling laws (Kaplan et al., arXiv 2001.08361)."""


class Flops(_Record):
    """FLOPs a token."""

    forward: int
    """All matrix products, attention included: the mean over a full context under the causal mask."""
    attention_scores: int
    """The part of `forward` that grows with the context."""
    training: int
    """Forward and backward: three times `forward`."""
    forward_2n: int
    """The usual estimate, 2 x total parameters."""
    training_6n: int


class KVCacheSize(_Record):
    token_bytes: int
    context_bytes: int
    """One sequence that fills the context."""


class WorkerMemory(_Record):
    """What one data-parallel worker holds in training, at its peak."""

    dtype: Dtype
    zero_stage: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """Estimate: tensors kept for the backward pass of one micro-batch, and the head's weight gradient."""
    total_bytes: int


class Forecast(_Record):
    matmul_flops_per_s: float
    """Of all workers together."""
    fraction: float
    """Share of that peak which training is assumed to reach."""
    tokens_per_s: float
    step_s: float
    total_s: float


class Plan(_Record):
    """The answer of `sluice plan`."""

    shape: TransformerConfig
    parameters: Parameters
    flops: Flops
    kv_cache: dict[Dtype, KVCacheSize]
    workers: int
    memory: list[WorkerMemory]
    """One row for each dtype and ZeRO stage."""
    tokens_per_step: int
    tokens: int
    """What the run reads: steps x batch x context."""
    compute_optimal_tokens: int
    forecast: Forecast | None


def plan(
    shape: TransformerConfig,
    run: PretrainConfig,
    *,
    matmul_flops_per_s: float | None = None,
    fraction: float = 0.5,
) -> Plan:
    """The cost of training `shape` as `run` says.

    `matmul_flops_per_s` is the peak of all workers together (see `measure_matmul_flops`); without it there is no
    forecast of time. Raises ValueError for a peak or a fraction that cannot be.
    """
    if matmul_flops_per_s is not None and not matmul_flops_per_s > 0:
        raise ValueError(f"matmul_flops_per_s {matmul_flops_per_s} must be above 0")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction} must be above 0 and at most 1")
    parameters = count_parameters(shape)
    flops = count_flops(shape)
    tokens_per_step = run.batch_size * shape.context
    forecast = None
    if matmul_flops_per_s is not None:
        tokens_per_s = matmul_flops_per_s * fraction / flops.training
        step_s = tokens_per_step / tokens_per_s
        forecast = Forecast(
            matmul_flops_per_s=matmul_flops_per_s,
            fraction=fraction,
            tokens_per_s=tokens_per_s,
            step_s=step_s,
            total_s=step_s * run.steps,
        )
    return Plan(
        shape=shape,
        parameters=parameters,
        flops=flops,
        kv_cache={dtype: kv_cache_size(shape, dtype) for dtype in _WEIGHT_BYTES},
        workers=run.workers,
        memory=[worker_memory(shape, dtype, stage, run) for dtype in _WEIGHT_BYTES for stage in range(4)],
        tokens_per_step=tokens_per_step,
        tokens=tokens_per_step * run.steps,
        compute_optimal_tokens=TOKENS_PER_PARAMETER * parameters.total,
        forecast=forecast,
    )


def count_parameters(shape: TransformerConfig) -> Parameters:
    """Exact: the numbers of the model that `Transformer(shape)` builds."""
    hidden = shape.hidden_size
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    embedding = shape.vocab_size * hidden
    attention = shape.layers * hidden * (2 * queries + 2 * keys)
    feedforward = shape.layers * 3 * hidden * shape.intermediate_size
    norms = (2 * shape.layers + 1) * hidden
    head = 0 if shape.tie_embeddings else embedding
    non_embedding = attention + feedforward + norms
    return Parameters(
        embedding=embedding,
        attention=attention,
        feedforward=feedforward,
        norms=norms,
        head=head,
        total=embedding + non_embedding + head,
        non_embedding=non_embedding,
    )


def count_flops(shape: TransformerConfig) -> Flops:
    """FLOPs a token, averaged over a sequence that fills the context."""
    parameters = count_parameters(shape)
    # A lookup costs nothing, but the head is a product whether or not it shares the embedding's weights.
    products = 2 * (parameters.attention + parameters.feedforward + shape.vocab_size * shape.hidden_size)
    # Token t looks at t+1 keys, (context+1)/2 on average, in two products: with the keys and with the values.
    attention_scores = 2 * shape.layers * shape.heads * shape.head_size * (shape.context + 1)
    forward = products + attention_scores
    return Flops(
        forward=forward,
        attention_scores=attention_scores,
        training=3 * forward,
        forward_2n=2 * parameters.total,
        training_6n=6 * parameters.total,
    )


def kv_cache_size(shape: TransformerConfig, dtype: Dtype) -> KVCacheSize:
    """Memory of the key-value cache of one sequence."""
    token = 2 * shape.layers * shape.kv_heads * shape.head_size * _WEIGHT_BYTES[dtype]
    return KVCacheSize(token_bytes=token, context_bytes=token * shape.context)


def worker_memory(shape: TransformerConfig, dtype: Dtype, zero_stage: int, run: PretrainConfig) -> WorkerMemory:
    """What one worker holds: ZeRO 1 shares out the optimizer's states, 2 the gradients too, 3 the weights too."""
    weights = count_parameters(shape).total

    def shared(size_bytes: int, from_stage: int) -> int:
        return -(-size_bytes // run.workers) if zero_stage >= from_stage else size_bytes

    parts = {
        "parameters_bytes": shared(weights * _WEIGHT_BYTES[dtype], 3),
        "gradients_bytes": shared(weights * _WEIGHT_BYTES[dtype], 2),
        "optimizer_bytes": shared(_moments_bytes(shape, run) + weights * _MASTER_BYTES[dtype], 1),
        "activations_bytes": activations_bytes(shape, dtype, run.micro_batch_size),
    }
    return WorkerMemory(dtype=dtype, zero_stage=zero_stage, **parts, total_bytes=sum(parts.values()))


def _moments_bytes(shape: TransformerConfig, run: PretrainConfig) -> int:
    """Adam keeps two float32 moments a weight; Muon one, of the layers' matrices only."""
    parameters = count_parameters(shape)
    one_moment = parameters.attention + parameters.feedforward if run.optimizer == "muon" else 0
    return 8 * parameters.total - 4 * one_moment


def activations_bytes(shape: TransformerConfig, dtype: Dtype, micro_batch_size: int) -> int:
    """Estimate of what a micro-batch keeps for its backward pass, without activation checkpointing."""
    hidden, intermediate = shape.hidden_size, shape.intermediate_size
    queries_keys_values = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    # The CPU's float32 attention keeps its probabilities, half of them being masked; the other kernels keep none.
    keeps = dtype == "fp32" and shape.context <= causal.LONGEST
    probabilities = shape.heads * (shape.context + causal.BLOCK) // 2 if keeps else 0
    # A layer keeps: both norms' inputs and outputs, rotated queries/keys/values, the heads' output, gate, up,
    # silu(gate) and its product with up. Outside the layers: the last norm's input, the loss's gradient by its output.
    per_layer = 5 * hidden + queries_keys_values + probabilities + 4 * intermediate
    per_token = shape.layers * per_layer + 2 * hidden
    head_gradient = shape.vocab_size * hidden
    return (micro_batch_size * shape.context * per_token + head_gradient) * _WEIGHT_BYTES[dtype]


def measure_matmul_flops(dtype: Dtype, threads: int, seconds: float = 0.3) -> float:
    """FLOPs a second of this machine's CPU in a large matrix product, best of those that fit into `seconds`.

    At least one product is timed, however long it takes. torch's thread count is as before on return.
    """
    size = 1024
    left, right = (torch.ones(size, size, dtype=_TORCH_DTYPE[dtype]) for _ in range(2))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.mm(left, right)  # the first product also starts the threads
        end = time.perf_counter() + seconds
        best_s = float("inf")
        while True:
            start = time.perf_counter()
            torch.mm(left, right)
            now = time.perf_counter()
            best_s = min(best_s, now - start)
            if now >= end:
                return 2 * size**3 / best_s
    finally:
        torch.set_num_threads(threads_before)
