"""Which settings of a run are supported together: one table for planner, trainer and documentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sluice.model.architecture.config import ModelConfig
from sluice.model.config import OBJECTIVE_KINDS, PretrainConfig
from sluice.model.parallelism.layout import layout_of
from sluice.model.parallelism.optimizers import OPTIMIZERS, optimizers_with


@dataclass(frozen=True)
class LayoutRule:
    """A combination of settings that is not supported."""

    setting: str
    """The setting of PretrainConfig that the message names, with its value."""
    applies: Callable[[PretrainConfig], bool]
    where: str
    """When it applies, in words."""
    broken: Callable[[PretrainConfig, ModelConfig], bool]
    conflict: str
    """The other side of the conflict, formatted with `run` and `model`."""
    needs: str
    """The allowed alternatives."""
    reason: str


def _pipeline(run: PretrainConfig) -> bool:
    return run.pipeline_stages > 1


def _tensor(run: PretrainConfig) -> bool:
    return run.tensor_parallel > 1


RULES: Sequence[LayoutRule] = (
    LayoutRule(
        "objective",
        lambda run: True,
        "always",
        lambda run, model: OBJECTIVE_KINDS[run.objective] != model.kind,
        "model.kind {model.kind}",
        "model.kind decoder for causal, encoder for masked, encoder-decoder for span",
        "each kind of model learns from one objective only",
    ),
    LayoutRule(
        "dtype",
        lambda run: run.dtype != "fp32",
        "dtype bf16 or fp16",
        lambda run, model: run.zero_stage == 0,
        "zero_stage 0",
        "zero_stage 1, 2 or 3",
        "only ZeRO keeps float32 master weights; at stage 0 DeepSpeed's bf16 Adam is one step off",
    ),
    LayoutRule(
        "dtype",
        lambda run: run.dtype == "fp16",
        "dtype fp16",
        lambda run, model: _pipeline(run) or _tensor(run) or not OPTIMIZERS[run.optimizer].fp16,
        "pipeline_stages {run.pipeline_stages}, tensor_parallel {run.tensor_parallel}, optimizer {run.optimizer}",
        f"pipeline_stages 1, tensor_parallel 1 and optimizer {optimizers_with(lambda each: each.fp16)}; or dtype bf16",
        "no test covers a loss scale with pipeline stages, tensor slices or Muon's updates",
    ),
    LayoutRule(
        "offload",
        lambda run: run.offload == "optimizer",
        "offload optimizer",
        lambda run, model: run.zero_stage == 0,
        "zero_stage 0",
        "zero_stage 1, 2 or 3",
        "a worker moves its ZeRO partition to the host",
    ),
    LayoutRule(
        "offload",
        lambda run: run.offload == "all",
        "offload all",
        lambda run, model: run.zero_stage < 3,
        "zero_stage {run.zero_stage}",
        "zero_stage 3",
        "weights can leave the device only where they are gathered for each use",
    ),
    LayoutRule(
        "offload",
        lambda run: run.offload != "none",
        "offload optimizer or all",
        lambda run, model: _pipeline(run) or _tensor(run),
        "pipeline_stages {run.pipeline_stages}, tensor_parallel {run.tensor_parallel}",
        "pipeline_stages 1 and tensor_parallel 1",
        "DeepSpeed moves gradients away in the backward pass, before those of the other processes are added",
    ),
    LayoutRule(
        "average_decay",
        lambda run: run.average_decay is not None,
        "average_decay",
        lambda run, model: run.zero_stage == 3,
        "zero_stage 3",
        "zero_stage 0, 1 or 2",
        "ZeRO 3 also keeps small weights whole, and the average would reach only the partitions",
    ),
    LayoutRule(
        "activation_checkpointing",
        lambda run: run.activation_checkpointing == "selective",
        "activation_checkpointing selective",
        lambda run, model: run.zero_stage == 3,
        "zero_stage 3",
        "zero_stage 0, 1 or 2; or activation_checkpointing full",
        "ZeRO 3 gathers weights in the recomputation where it did not in the first pass, which torch refuses",
    ),
    LayoutRule(
        "compile",
        lambda run: run.compile,
        "compile",
        lambda run, model: run.zero_stage == 3 or _tensor(run),
        "zero_stage {run.zero_stage}, tensor_parallel {run.tensor_parallel}",
        "zero_stage 0, 1 or 2 and tensor_parallel 1",
        "hooks that communicate break the graph at every matrix",
    ),
    LayoutRule(
        "compile",
        lambda run: run.compile,
        "compile",
        lambda run, model: run.activation_checkpointing == "selective",
        "activation_checkpointing selective",
        "activation_checkpointing none or full",
        "the compiler itself chooses what to recompute",
    ),
    LayoutRule(
        "pipeline_stages",
        _pipeline,
        "pipeline_stages above 1",
        lambda run, model: run.zero_stage > 1,
        "zero_stage {run.zero_stage}",
        "zero_stage 0 or 1",
        "a stage sums the gradients of its micro-batches before they are reduced; ZeRO 2 and 3 reduce each at once",
    ),
    LayoutRule(
        "pipeline_stages",
        _pipeline,
        "pipeline_stages above 1",
        lambda run, model: run.pipeline_stages > model.layers,
        "model.layers {model.layers}",
        "pipeline_stages up to model.layers",
        "every stage needs a layer",
    ),
    LayoutRule(
        "pipeline_stages",
        _pipeline,
        "pipeline_stages above 1",
        lambda run, model: (
            model.kind == "encoder-decoder" or model.mixture is not None or model.positions == "relative"
        ),
        "an encoder-decoder, a mixture of experts or relative positions",
        "model.kind decoder or encoder, no model.mixture, model.positions other than relative",
        "stages exchange only the residual stream, not an encoder's states, router losses or a shared table",
    ),
    LayoutRule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda run, model: run.zero_stage == 3,
        "zero_stage 3",
        "zero_stage 0, 1 or 2",
        "both would split the same matrices",
    ),
    LayoutRule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda run, model: not OPTIMIZERS[run.optimizer].tensor_parallel,
        "optimizer {run.optimizer}",
        f"optimizer {optimizers_with(lambda each: each.tensor_parallel)}",
        "Muon orthogonalizes whole matrices, and the update of a slice is a different one",
    ),
    LayoutRule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda run, model: any(
            size % run.tensor_parallel for size in (model.heads, model.kv_heads, model.feedforward_width)
        ),
        "model.heads {model.heads}, model.kv_heads {model.kv_heads}, feed-forward width {model.feedforward_width}",
        "a tensor_parallel that divides model.heads, model.kv_heads and the feed-forward width",
        "heads and the feed-forward width are split",
    ),
    LayoutRule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda run, model: model.mixture is not None or model.state_space is not None,
        "a mixture of experts or state space layers",
        "no model.mixture and no model.state_space",
        "only attention and dense feed-forward networks are split",
    ),
    LayoutRule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda run, model: model.qk_norm_over == "all_heads",
        "model.qk_norm_over {model.qk_norm_over}",
        "model.qk_norm_over head",
        "a process holds only some of the heads that the norm takes its mean over",
    ),
    LayoutRule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda run, model: model.dropout > 0 or model.attention_dropout > 0,
        "dropout",
        "model.dropout 0 and model.attention_dropout 0",
        "the processes of a group would need one mask for the residual stream and different ones for their heads",
    ),
)


def violation(run: PretrainConfig, model: ModelConfig, *, cuda: bool) -> str | None:
    """Why `run` cannot train `model`, in one line; None if it can. `cuda`: whether the workers have GPUs."""
    try:
        layout_of(run)
    except ValueError as error:
        return str(error)
    if run.dtype == "fp16" and not cuda:
        return "dtype fp16 needs CUDA: on a CPU use bf16, which has float32's range and needs no loss scaling"
    for rule in RULES:
        if rule.applies(run) and rule.broken(run, model):
            conflict = rule.conflict.format(run=run, model=model)
            return (
                f"{rule.setting} {getattr(run, rule.setting)} is not supported with {conflict}, because {rule.reason}: "
                f"use {rule.needs}"
            )
    return None


def check(run: PretrainConfig, model: ModelConfig, *, cuda: bool) -> None:
    """Raise ValueError with the `violation`, if there is one."""
    if (reason := violation(run, model, cuda=cuda)) is not None:
        raise ValueError(reason)


def table() -> str:
    """The rules as a table in Markdown."""
    rows = [f"| {rule.where} | {rule.needs} | {rule.reason} |" for rule in RULES]
    return "\n".join(["| With | it has to be | because |", "|---|---|---|", *rows])
