"""Which ways to train go together: one table, checked before anything starts, and printed in the documentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.layout import Layout
from sluice.model.training.batches.settings import KINDS

Told = Callable[[PretrainConfig, ModelConfig], bool]


@dataclass(frozen=True)
class Rule:
    """A combination that cannot be trained."""

    setting: str
    """Of PretrainConfig, whose value the message names."""
    applies: Callable[[PretrainConfig], bool]
    where: str
    """In words, when it applies."""
    broken: Told
    needs: str
    """What is allowed."""
    reason: str


def _pipeline(config: PretrainConfig) -> bool:
    return config.pipeline_stages > 1


def _tensor(config: PretrainConfig) -> bool:
    return config.tensor_parallel > 1


def _indivisible(config: PretrainConfig, model: ModelConfig) -> bool:
    sizes = (model.heads, model.kv_heads, model.feedforward_width)
    return any(size % config.tensor_parallel for size in sizes)


RULES: Sequence[Rule] = (
    Rule(
        "objective",
        lambda c: True,
        "always",
        lambda c, m: KINDS[c.objective] != m.kind,
        "model.kind decoder for causal, encoder for masked, encoder-decoder for span",
        "each kind of model can learn from one objective only",
    ),
    Rule(
        "dtype",
        lambda c: c.dtype != "fp32",
        "dtype bf16 or fp16",
        lambda c, m: c.zero_stage == 0,
        "zero_stage 1, 2 or 3",
        "only ZeRO keeps float32 master weights; at stage 0 DeepSpeed's bf16 Adam is one step off",
    ),
    Rule(
        "dtype",
        lambda c: c.dtype == "fp16",
        "dtype fp16",
        lambda c, m: _pipeline(c) or _tensor(c) or c.optimizer == "muon",
        "pipeline_stages 1, tensor_parallel 1 and optimizer adamw or lion; or dtype bf16",
        "what a loss scale does to stages, slices and Muon's updates is checked by no test",
    ),
    Rule(
        "offload",
        lambda c: c.offload == "optimizer",
        "offload optimizer",
        lambda c, m: c.zero_stage == 0,
        "zero_stage 1, 2 or 3",
        "what is moved to the host is a worker's partition",
    ),
    Rule(
        "offload",
        lambda c: c.offload == "all",
        "offload all",
        lambda c, m: c.zero_stage < 3,
        "zero_stage 3",
        "weights can leave the device only where they are gathered for each use",
    ),
    Rule(
        "offload",
        lambda c: c.offload != "none",
        "offload optimizer or all",
        lambda c, m: _pipeline(c) or _tensor(c),
        "pipeline_stages 1 and tensor_parallel 1",
        "DeepSpeed moves gradients away in the backward pass, before the other processes' parts are added",
    ),
    Rule(
        "average_decay",
        lambda c: c.average_decay is not None,
        "average_decay",
        lambda c, m: c.zero_stage == 3,
        "zero_stage 0, 1 or 2",
        "ZeRO 3 keeps small weights whole beside its shares, and the average would be put into the shares alone",
    ),
    Rule(
        "activation_checkpointing",
        lambda c: c.activation_checkpointing == "selective",
        "activation_checkpointing selective",
        lambda c, m: c.zero_stage == 3,
        "zero_stage 0, 1 or 2; or activation_checkpointing full",
        "ZeRO 3 gathers weights in the recomputation where it did not in the first pass, which torch refuses",
    ),
    Rule(
        "compile",
        lambda c: c.compile,
        "compile",
        lambda c, m: c.zero_stage == 3 or _tensor(c),
        "zero_stage 0, 1 or 2 and tensor_parallel 1",
        "hooks that communicate cut the graph at every matrix",
    ),
    Rule(
        "compile",
        lambda c: c.compile,
        "compile",
        lambda c, m: c.activation_checkpointing == "selective",
        "activation_checkpointing none or full",
        "the compiler chooses by itself what to compute again",
    ),
    Rule(
        "pipeline_stages",
        _pipeline,
        "pipeline_stages above 1",
        lambda c, m: c.zero_stage > 1,
        "zero_stage 0 or 1",
        "a stage adds up the gradients of its micro-batches before they are reduced, which ZeRO 2 and 3 do at once",
    ),
    Rule(
        "pipeline_stages",
        _pipeline,
        "pipeline_stages above 1",
        lambda c, m: c.pipeline_stages > m.layers,
        "pipeline_stages up to model.layers",
        "every stage needs a layer",
    ),
    Rule(
        "pipeline_stages",
        _pipeline,
        "pipeline_stages above 1",
        lambda c, m: m.kind == "encoder-decoder" or m.mixture is not None or m.positions == "relative",
        "model.kind decoder or encoder, no model.mixture, model.positions other than relative",
        "between stages the stream alone travels, and neither an encoder's states, routers' losses nor a shared table",
    ),
    Rule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda c, m: c.zero_stage == 3,
        "zero_stage 0, 1 or 2",
        "both would cut the same matrices",
    ),
    Rule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda c, m: c.optimizer == "muon",
        "optimizer adamw or lion",
        "Muon orthogonalizes whole matrices, and a slice's update is another one",
    ),
    Rule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        _indivisible,
        "a tensor_parallel that divides model.heads, model.kv_heads and the feed-forward width",
        "heads and inner width are what is divided",
    ),
    Rule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda c, m: m.mixture is not None or m.state_space is not None,
        "no model.mixture and no model.state_space",
        "attention and dense feed-forward networks are what is divided",
    ),
    Rule(
        "tensor_parallel",
        _tensor,
        "tensor_parallel above 1",
        lambda c, m: m.dropout > 0 or m.attention_dropout > 0,
        "model.dropout 0 and model.attention_dropout 0",
        "the processes of a group would have to draw one mask for the stream and different ones for their heads",
    ),
)


def data_workers(config: PretrainConfig) -> int:
    """Data-parallel workers of a run. Raises ValueError where the processes cannot be shared out."""
    return Layout(config.workers, config.pipeline_stages, config.tensor_parallel).data


def check(config: PretrainConfig, model: ModelConfig, *, cuda: bool) -> None:
    """Raises ValueError, in one line, for what cannot be trained; `cuda` says whether the workers have GPUs."""
    data_workers(config)
    if config.dtype == "fp16" and not cuda:
        raise ValueError(
            "dtype fp16 needs CUDA: on a CPU use bf16, which has float32's range and needs no loss scaling"
        )
    for rule in RULES:
        if rule.applies(config) and rule.broken(config, model):
            value = getattr(config, rule.setting)
            raise ValueError(f"{rule.setting} {value} cannot be trained so, because {rule.reason}: use {rule.needs}")


def table() -> str:
    """The rules as a table in Markdown."""
    rows = [f"| {rule.where} | {rule.needs} | {rule.reason} |" for rule in RULES]
    return "\n".join(["| With | it has to be | because |", "|---|---|---|", *rows])
