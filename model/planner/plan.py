"""The whole answer of `sluice plan`: what a model and a run cost before they start."""

from itertools import product
from typing import Literal

from sluice.model.architecture.config import TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.accelerators import DEVICES, Device
from sluice.model.planner.base import Dtype, Record
from sluice.model.planner.compute_optimal import Law, Optimum, optima, optimal_tokens
from sluice.model.planner.device_fit import Fit, fit
from sluice.model.planner.flops import AttentionShare, Flops, attention_shares, count_flops
from sluice.model.planner.kv_cache import CacheDtype, CacheSize, cache_sizes
from sluice.model.planner.layout import Layout, check_layout, layout_of
from sluice.model.planner.memory import DeviceMemory, Offload, device_memory
from sluice.model.planner.parameters import Parameters, count_parameters
from sluice.model.planner.serving import Capacity, users
from sluice.model.planner.settings import PlanConfig
from sluice.model.planner.step_forecast import Check
from sluice.model.planner.throughput import RunCost, run_cost

_TRAINED: tuple[Dtype, ...] = ("fp32", "bf16")
"""Types that memory is told for: of fp16 it is that of bf16."""
_SERVED: tuple[CacheDtype, ...] = ("bf16", "int8")


class Plan(Record):
    """Everything that is known before the first step."""

    shape: TransformerConfig
    parameters: Parameters
    flops: Flops
    attention_share: list[AttentionShare]
    kv_cache: list[CacheSize]
    """Empty for an encoder, which keeps none."""
    layout: Layout
    """The run's, but for what was asked for; `memory` has a row for each ZeRO stage."""
    activation_checkpointing: Literal["none", "selective", "full"]
    """The run's; `memory` has rows with and without the full one."""
    offload: Offload
    """The run's, in every row of `memory`."""
    optimizer: str
    """Whose states `memory` holds."""
    micro_batch_size: int
    """Sequences whose activations `memory` holds."""
    memory: list[DeviceMemory]
    """One row for each dtype, ZeRO stage and with or without checkpointing."""
    serving: list[Capacity]
    tokens_per_step: int
    tokens: int
    """The token budget."""
    costs: list[RunCost]
    """Neither timed nor priced where `fits` says that the run does not fit."""
    fits: list[Fit]
    """Of the same devices, in bf16: `costs` reckons with that peak. Ways that share out less than the run does, or
    keep what it computes again, are none of its ways.
    """
    training_flops: float
    """Of the token budget."""
    compute_budget_flops: float
    """What `compute_optimal` spends."""
    compute_optimal: list[Optimum]
    compute_optimal_tokens: dict[Law, float]
    """For a model of this size."""
    machine: Device | None
    """This one, its peak as measured in a matrix product."""
    check: Check | None
    """The forecast for this machine beside what a real step took; None: not asked for."""


def plan(
    config: TransformerConfig,
    run: PretrainConfig,
    settings: PlanConfig | None = None,
    *,
    machine: Device | None = None,
    check: Check | None = None,
) -> Plan:
    """The cost of training `config` as `run` says, and of serving it. Pure: what was measured comes in.

    Raises ValueError for degrees that do not divide and ways of sharing that do not go together.
    """
    settings = settings or PlanConfig()
    layout = layout_of(run, settings)
    check_layout(config, layout)
    parameters, flops = count_parameters(config), count_flops(config)
    tokens_per_step = run.batch_size * config.context
    tokens = settings.tokens or tokens_per_step * run.steps
    training_flops = flops.training * tokens
    budget = settings.flops or training_flops
    named = [DEVICES[settings.device]] if settings.device else list(DEVICES.values())
    memory = _memory(config, run, settings, layout)
    checkpointing = run.activation_checkpointing == "full"
    ways = [each for each in memory if each.zero_stage >= layout.zero_stage and each.checkpointing >= checkpointing]
    costs = [
        run_cost(
            device,
            devices=layout.devices,
            training_flops_per_token=flops.training,
            tokens=tokens,
            tokens_per_step=tokens_per_step,
            mfu=settings.mfu,
            pue=settings.pue,
            price_per_hour=settings.price_per_hour,
        )
        for device in named
    ]
    fits = [fit(ways, device, dtype="bf16", reserve=settings.reserve) for device in named]
    return Plan(
        shape=config,
        parameters=parameters,
        flops=flops,
        attention_share=attention_shares(config),
        kv_cache=[] if config.kind == "encoder" else cache_sizes(config),
        layout=layout,
        activation_checkpointing=run.activation_checkpointing,
        offload=run.offload,
        optimizer=run.optimizer,
        micro_batch_size=run.micro_batch_size,
        memory=memory,
        serving=_serving(config, settings, named, machine),
        tokens_per_step=tokens_per_step,
        tokens=tokens,
        costs=[cost if each.fits else cost.unspent() for cost, each in zip(costs, fits, strict=True)],
        fits=fits,
        training_flops=training_flops,
        compute_budget_flops=budget,
        compute_optimal=optima(budget),
        compute_optimal_tokens=optimal_tokens(parameters.total),
        machine=machine,
        check=check,
    )


def _memory(config: TransformerConfig, run: PretrainConfig, settings: PlanConfig, layout: Layout) -> list[DeviceMemory]:
    sequences = layout.data * run.micro_batch_size
    if run.batch_size % sequences:
        raise ValueError(
            f"pretrain.batch_size {run.batch_size} must be a multiple of data-parallel devices x micro_batch_size "
            f"= {layout.data} x {run.micro_batch_size}: set it to {-(-run.batch_size // sequences) * sequences}"
        )
    stages = (0, 1) if layout.pipeline > 1 else (0, 1, 2, 3)
    return [
        device_memory(
            config,
            layout.model_copy(update={"zero_stage": stage}),
            dtype=dtype,
            optimizer=run.optimizer,
            micro_batch_size=run.micro_batch_size,
            micro_batches=run.batch_size // sequences,
            checkpointing=checkpointing,
            offload=run.offload,
        )
        for dtype, stage, checkpointing in product(
            _TRAINED, stages if settings.zero_stage is None else (settings.zero_stage,), (False, True)
        )
    ]


def _serving(
    config: TransformerConfig, settings: PlanConfig, named: list[Device], machine: Device | None
) -> list[Capacity]:
    if config.kind == "encoder":
        for name in ("context", "serving_devices"):
            if getattr(settings, name) != PlanConfig.model_fields[name].default:
                raise ValueError(f"plan.{name} has no effect: an encoder keeps no cache of its users' tokens")
        return []
    return [
        users(
            config,
            device,
            devices=settings.serving_devices,
            context=settings.context,
            cache_dtype=dtype,
            reserve=settings.reserve,
        )
        for device in [*named, *([machine] if machine else [])]
        for dtype in _SERVED
    ]
