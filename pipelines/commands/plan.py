"""`sluice plan`: what the configured model and run cost, before anything is spent."""

import argparse
import os
from typing import TYPE_CHECKING

from components.params import validate
from components.workspace import Workspace
from data.config import TokenizerConfig
from model.config import ModelConfig, PretrainConfig
from pipelines.parameters import compose
from pipelines.terminal import clock

if TYPE_CHECKING:
    from model.budget import Plan


def run(arguments: argparse.Namespace) -> int:
    blocks = validate(compose(Workspace.find(), arguments.overrides))
    model, pretrain, tokenizer = blocks["model"], blocks["pretrain"], blocks["tokenizer"]
    assert isinstance(model, ModelConfig)
    assert isinstance(pretrain, PretrainConfig)
    assert isinstance(tokenizer, TokenizerConfig)
    from model.architecture.config import TransformerConfig
    from model.budget import measure_matmul_flops, plan

    shape = TransformerConfig.from_settings(model, tokenizer.vocab_size)
    peak = measure_matmul_flops(pretrain.dtype, threads=os.cpu_count() or 1)
    made = plan(shape, pretrain, matmul_flops_per_s=peak)
    print(made.model_dump_json() if arguments.json else render(made))
    return 0


def render(plan: "Plan") -> str:
    """The plan as a table for a person."""
    parameters, flops = plan.parameters, plan.flops
    lines = [
        f"parameters    {parameters.total:,}: embedding {parameters.embedding:,}, attention {parameters.attention:,}, "
        f"feed-forward {parameters.feedforward:,}, norms {parameters.norms:,}, head {parameters.head:,}",
        f"a token       {flops.forward / 1e6:,.2f} MFLOP forward, {flops.training / 1e6:,.2f} in training",
        f"run           {plan.tokens:,} tokens in steps of {plan.tokens_per_step:,}; "
        f"{plan.compute_optimal_tokens:,} would be compute-optimal (20 a parameter)",
    ]
    lines += [
        f"KV cache      {dtype}: {cache.token_bytes:,} bytes a token, {_mib(cache.context_bytes)} for a full context"
        for dtype, cache in plan.kv_cache.items()
    ]
    lines += [
        f"a worker      {memory.dtype}, ZeRO {memory.zero_stage}, {plan.workers} workers: {_mib(memory.total_bytes)}, "
        f"of it activations {_mib(memory.activations_bytes)}"
        for memory in plan.memory
    ]
    if plan.forecast is not None:
        time, peak = plan.forecast, plan.forecast.matmul_flops_per_s / 1e9
        lines.append(
            f"forecast      {clock(time.total_s)} at {time.tokens_per_s:,.0f} tokens/s, "
            f"if {time.fraction:.0%} of the measured {peak:,.0f} GFLOP/s is reached"
        )
    return "\n".join(lines)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"
