"""Memory of one device in training: weights, gradients, optimizer state and activations under each layout."""

from collections import Counter
from typing import Literal

from sluice.model.architecture.config import TransformerConfig
from sluice.model.parallelism.layout import Layout
from sluice.model.parallelism.optimizers import OPTIMIZERS, OptimizerName
from sluice.model.planner.activations import Kernel, input_bytes, layer_bytes, outer_bytes, workspace_bytes
from sluice.model.planner.base import WEIGHT_BYTES, Dtype, Record
from sluice.model.planner.weights import WeightSpec, pipeline_stages

Offload = Literal["none", "optimizer", "all"]

_MOMENT_BYTES = 4
_MASTER_BYTES: dict[Dtype, int] = {"fp32": 0, "bf16": 4, "fp16": 4}
"""A float32 copy goes with bf16 weights (ZeRO, arXiv 1910.02054, section 3.1)."""


class DeviceMemory(Record):
    """Peak memory of the fullest device."""

    dtype: Dtype
    zero_stage: int
    tensor: int
    pipeline: int
    checkpointing: bool
    """Whether a layer keeps only its input and recomputes the rest."""
    stage: int
    """The pipeline stage of that device, from 0."""
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """Kept for the backward pass."""
    workspace_bytes: int
    """Temporary: gradients within one layer, logits of a chunk of rows, at ZeRO 3 the gathered weights."""
    total_bytes: int
    host_bytes: int
    """In the host's memory, not in the sums above: this device's part of the offloaded state."""


def device_memory(
    config: TransformerConfig,
    layout: Layout,
    *,
    dtype: Dtype,
    optimizer: OptimizerName,
    micro_batch_size: int,
    micro_batches: int = 1,
    length: int | None = None,
    checkpointing: bool = False,
    offload: Offload = "none",
    kernel: Kernel | None = None,
    on_cpu: bool = False,
) -> DeviceMemory:
    """`micro_batches`: those of an optimizer step, of which a pipeline's first stages hold several at a time.

    `offload` moves what the ZeRO stage can: the optimizer's states from stage 1 on, the weights at stage 3. Gradients
    are counted on the device, which holds them until they are reduced.

    The layout is one that `parallelism.rules.check` accepts. Raises ValueError for more stages than layers.
    """
    length = length or config.context
    workspace = workspace_bytes(
        config, dtype=dtype, batch=micro_batch_size, length=length, on_cpu=on_cpu, tensor=layout.tensor
    )
    found = []
    for number, stage in enumerate(pipeline_stages(config, layout.pipeline)):
        parts = _states(stage.weights, layout, dtype, optimizer)
        # ZeRO-Offload (arXiv 2101.06840).
        offloaded = ["optimizer_bytes"] if offload != "none" and layout.zero_stage > 0 else []
        offloaded += ["parameters_bytes"] if offload == "all" and layout.zero_stage == 3 else []
        host = sum(parts[name] for name in offloaded)
        parts |= dict.fromkeys(offloaded, 0)
        passing = workspace
        if layout.zero_stage == 3 and (layout.data > 1 or offload == "all"):
            # Weights are gathered while they are in use: those of the largest layer, or a table.
            gathered: Counter[object] = Counter()
            for weight in stage.weights:
                gathered[weight.layer or weight.name] += weight.size // (layout.tensor if weight.divided else 1)
            passing += max(gathered.values()) * WEIGHT_BYTES[dtype]
        # One micro-batch forward, one backward in turn (PipeDream-flush): stage i has begun pipeline - i of them.
        in_flight = min(layout.pipeline - number, micro_batches)
        kept = [
            layer_bytes(
                config,
                layer,
                dtype=dtype,
                batch=micro_batch_size,
                length=length,
                kernel=kernel,
                tensor=layout.tensor,
                on_cpu=on_cpu,
            )
            for layer in stage.layers
        ]
        if checkpointing:
            one = input_bytes(config, dtype=dtype, batch=micro_batch_size, length=length)
            activations = in_flight * len(kept) * one + max(kept)
        else:
            activations = in_flight * sum(kept)
        if number == layout.pipeline - 1:
            activations += outer_bytes(config, dtype=dtype, batch=micro_batch_size, length=length)
        found.append(
            DeviceMemory(
                dtype=dtype,
                zero_stage=layout.zero_stage,
                tensor=layout.tensor,
                pipeline=layout.pipeline,
                checkpointing=checkpointing,
                stage=number,
                **parts,
                activations_bytes=activations,
                workspace_bytes=passing,
                total_bytes=sum(parts.values()) + activations + passing,
                host_bytes=host,
            )
        )
    return max(found, key=lambda each: each.total_bytes)


def _states(held: list[WeightSpec], layout: Layout, dtype: Dtype, optimizer: OptimizerName) -> dict[str, int]:
    """Weights, gradients and optimizer of a stage's weights on one of its devices."""
    sizes = {id(weight): -(-weight.size // (layout.tensor if weight.divided else 1)) for weight in held}
    count = sum(sizes.values())
    traits = OPTIMIZERS[optimizer]
    moments = _MOMENT_BYTES * sum(
        sizes[id(weight)] * len(traits.rule(is_matrix=weight.is_product).moments) for weight in held
    )

    def shared(size_bytes: int, from_stage: int) -> int:
        return -(-size_bytes // layout.data) if layout.zero_stage >= from_stage else size_bytes

    return {
        "parameters_bytes": shared(count * WEIGHT_BYTES[dtype], 3),
        "gradients_bytes": shared(count * WEIGHT_BYTES[dtype], 2),
        "optimizer_bytes": shared(moments + count * _MASTER_BYTES[dtype], 1),
    }
