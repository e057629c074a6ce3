"""Rates of this machine at the shapes of a model, from which the time of a step is forecast."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from sluice.model.architecture.config import GATED, TransformerConfig
from sluice.model.architecture.state_space_config import StateSpaceConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.activations import network_entries
from sluice.model.planner.base import Dtype
from sluice.model.planner.step_forecast import Attending, Product, Rates, list_attentions, list_products

if TYPE_CHECKING:
    from sluice.model.architecture.attention_mask import AttentionMask

TORCH_DTYPE: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_TIMED_S = 0.25
_LEAST_REPEATS = 2


def measure_matmul_flops(dtype: Dtype, threads: int, seconds: float = 0.3) -> float:
    """FLOPs a second of this machine's CPU in a large matrix product, best of those that fit into `seconds`.

    At least one product is timed, however long it takes. torch's thread count is as before on return.
    """
    size = 1024
    left, right = (torch.ones(size, size, dtype=TORCH_DTYPE[dtype]) for _ in range(2))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.mm(left, right)  # the first product also starts the threads
        end = time.perf_counter() + seconds
        best_s = float("inf")
        while True:
            start = time.perf_counter()
            torch.mm(left, right)
            best_s = min(best_s, time.perf_counter() - start)
            if time.perf_counter() >= end:
                return 2 * size**3 / best_s
    finally:
        torch.set_num_threads(threads_before)


def measure_rates(config: TransformerConfig, run: PretrainConfig) -> Rates:
    dtype, tokens = TORCH_DTYPE[run.dtype], run.micro_batch_size * config.context
    weights = torch.ones(config.vocab_size, config.hidden_size)
    return Rates(
        products_s=[_product_s(product, dtype) for product in list_products(config, tokens)],
        attention_s=[_attention_s(config, run, dtype, each) for each in list_attentions(config)],
        scan_s=_scan_s(config, config.state_space, run) if config.state_space else 0.0,
        kept_bytes_per_s=_kept_bytes_per_s(config, tokens, dtype),
        bytes_per_s=2 * weights.nbytes / _mean(lambda: weights.mul_(1.0)),
    )


def _product_s(product: Product, dtype: torch.dtype) -> float:
    """Forward, and backward by the input and by the weight. Rows beyond a chunk's worth are scaled up."""
    rows = min(product.rows, max(64, 2**27 // (product.inputs * product.outputs)))
    x, weight = torch.ones(rows, product.inputs, dtype=dtype), torch.ones(product.outputs, product.inputs, dtype=dtype)
    upstream = torch.ones(rows, product.outputs, dtype=dtype)
    seconds = _mean(lambda: (x @ weight.T, upstream @ weight, upstream.T @ x))
    return seconds * product.rows / rows


def _kept_bytes_per_s(config: TransformerConfig, tokens: int, dtype: torch.dtype) -> float:
    """Rate of the feed-forward network's activation, forward and backward."""
    from sluice.model.architecture.pointwise import activate

    up = torch.ones(tokens, config.feedforward_width, dtype=dtype, requires_grad=True)
    gate = torch.ones_like(up, requires_grad=True) if config.feedforward in GATED else None
    upstream = torch.ones_like(up)
    seconds = _mean(lambda: activate(config.feedforward, up, gate).backward(upstream))
    return network_entries(config, config.feedforward_width) * tokens * dtype.itemsize / seconds


def _attention_s(config: TransformerConfig, run: PretrainConfig, dtype: torch.dtype, attending: Attending) -> float:
    from sluice.model.architecture.attention_mask import AttentionCall
    from sluice.model.architecture.kernels import attend

    mask = _attention_mask(config, dtype, attending)
    shape = (run.micro_batch_size, config.context)
    queries = torch.ones(*shape, config.heads, config.head_width, dtype=dtype, requires_grad=True)
    keys, values = (
        torch.ones(*shape, config.kv_heads, config.head_width, dtype=dtype, requires_grad=True) for _ in range(2)
    )
    upstream = torch.ones_like(queries)

    call = AttentionCall(
        queries,
        keys,
        values,
        mask,
        scale=config.attention_scale or config.head_width**-0.5,
        soft_cap=config.attention_soft_cap,
        dropout=config.attention_dropout,
    )

    def both_ways() -> None:
        attend(call).backward(upstream)

    return _mean(both_ways)


def _attention_mask(config: TransformerConfig, dtype: torch.dtype, attending: Attending) -> "AttentionMask":
    """Mask over whole sequences, with the biases of scores by distance that the model's positions add."""
    from sluice.model.architecture.attention_mask import AttentionMask, alibi_slopes

    mask = AttentionMask.self_attention(
        config.context,
        causal=attending.causal(config),
        window=attending.window,
        global_tokens=config.global_tokens if attending.window else 0,
    )
    if attending.is_cross:
        return mask
    if config.positions == "alibi":
        return replace(mask, slopes=alibi_slopes(config.heads), plain=False)
    if config.positions == "relative":
        bias = torch.zeros(1, config.heads, config.context, config.context, dtype=dtype, requires_grad=True)
        return replace(mask, bias=bias, plain=False)
    return mask


def _scan_s(config: TransformerConfig, state: StateSpaceConfig, run: PretrainConfig) -> float:
    from sluice.model.architecture.scan import chunked_scan

    shape, heads = (run.micro_batch_size, config.context), config.hidden_size * state.expand // state.head_size
    x = torch.ones(*shape, heads, state.head_size, requires_grad=True)
    dt = torch.full((*shape, heads), 0.01, requires_grad=True)
    rate = torch.full((heads,), -1.0, requires_grad=True)
    b, c = (torch.ones(*shape, state.groups, state.state_size, requires_grad=True) for _ in range(2))
    upstream = torch.ones_like(x)
    return _mean(lambda: chunked_scan(x, dt, rate, b, c, chunk=state.chunk)[0].backward(upstream))


def _mean(action: Callable[[], object]) -> float:
    """Seconds of a call, as `both_means`, without other work on the machine."""
    return both_means(action)[0]


def both_means(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call after a first one: of each thread's CPU, which other work on the machine leaves nearly alone,
    and by the clock.
    """
    action()
    start, start_cpu, calls = time.perf_counter(), time.process_time(), 0
    while calls < _LEAST_REPEATS or time.perf_counter() - start < _TIMED_S:
        action()
        calls += 1
    cpu = (time.process_time() - start_cpu) / torch.get_num_threads()
    return cpu / calls, (time.perf_counter() - start) / calls
