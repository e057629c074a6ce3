"""The plan that `sluice plan` prints: costs of a model and a run before they start."""

from itertools import product
from typing import Literal

from sluice.model.architecture.config import TransformerConfig
from sluice.model.config import OBJECTIVE_KINDS, PretrainConfig
from sluice.model.parallelism.layout import Layout, layout_of
from sluice.model.parallelism.rules import check, violation
from sluice.model.planner.accelerators import DEVICES, Device
from sluice.model.planner.base import Dtype, Record
from sluice.model.planner.compute_optimal import Law, Optimum, optima, optimal_tokens
from sluice.model.planner.device_fit import DeviceFit, fit_device
from sluice.model.planner.flops import AttentionShare, Flops, attention_shares, count_flops
from sluice.model.planner.kv_cache import CacheDtype, CacheSize, cache_sizes
from sluice.model.planner.memory import DeviceMemory, Offload, device_memory
from sluice.model.planner.parameters import Parameters, count_parameters
from sluice.model.planner.serving import Capacity, users
from sluice.model.planner.settings import PlanConfig
from sluice.model.planner.step_forecast import ForecastCheck
from sluice.model.planner.throughput import RunCost, run_cost

_TRAINED: tuple[Dtype, ...] = ("fp32", "bf16")
"""Types whose memory is listed: that of fp16 equals that of bf16."""
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
    """The run's, with the degrees of `plan.`; `memory` has a row for each ZeRO stage."""
    activation_checkpointing: Literal["none", "selective", "full"]
    """The run's; `memory` has rows with and without the full one."""
    offload: Offload
    """The run's, in every row of `memory`."""
    optimizer: str
    """The optimizer whose states `memory` counts."""
    micro_batch_size: int
    """Sequences whose activations `memory` counts."""
    memory: list[DeviceMemory]
    """One row for each dtype, ZeRO stage and with or without checkpointing that the trainer supports."""
    serving: list[Capacity]
    tokens_per_step: int
    tokens: int
    """The token budget."""
    costs: list[RunCost]
    """Without time and price where the run does not fit."""
    fits: list[DeviceFit]
    """One for each of `costs`, in bf16, whose peak `costs` uses, or in fp32 where the trainer supports only that. Only
    ways at the run's ZeRO stage or above, with checkpointing where the run has it.
    """
    training_flops: float
    """For the token budget."""
    compute_budget_flops: float
    """The budget of `compute_optimal`."""
    compute_optimal: list[Optimum]
    compute_optimal_tokens: dict[Law, float]
    """For a model of this size."""
    machine: Device | None
    """This machine, its peak as measured in a matrix product."""
    check: ForecastCheck | None
    """The forecast for this machine beside a measured step; None: not measured."""


def plan(
    config: TransformerConfig,
    run: PretrainConfig,
    settings: PlanConfig | None = None,
    *,
    machine: Device | None = None,
    check: ForecastCheck | None = None,
) -> Plan:
    """The cost of training `config` by `run`, and of serving it. Pure: measurements are arguments.

    Raises ValueError for a run that the trainer would refuse.
    """
    settings = settings or PlanConfig()
    run = planned_run(config, run, settings)
    layout = layout_of(run)
    parameters, flops = count_parameters(config), count_flops(config)
    tokens_per_step = run.batch_size * config.context
    tokens = settings.tokens or tokens_per_step * run.steps
    training_flops = flops.training * tokens
    budget = settings.flops or training_flops
    named = [DEVICES[settings.device]] if settings.device else list(DEVICES.values())
    memory = _memory(config, run, settings)
    checkpointing = run.activation_checkpointing == "full"
    ways = [each for each in memory if each.zero_stage >= layout.zero_stage and each.checkpointing >= checkpointing]
    dtype: Dtype = "bf16" if any(each.dtype == "bf16" for each in ways) else "fp32"
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
    fits = [fit_device(ways, device, dtype=dtype, reserve=settings.reserve) for device in named]
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


def planned_run(config: TransformerConfig, run: PretrainConfig, settings: PlanConfig) -> PretrainConfig:
    """`run` with the degrees of `settings`, and the objective of the model's kind, on which no cost depends.

    Raises ValueError for a run that the trainer would refuse (on GPUs, where fp16 trains).
    """
    degrees = {
        "workers": settings.devices,
        "tensor_parallel": settings.tensor,
        "pipeline_stages": settings.pipeline,
        "zero_stage": settings.zero_stage,
    }
    objective = next(name for name, kind in OBJECTIVE_KINDS.items() if kind == config.kind)
    changed = {name: value for name, value in degrees.items() if value is not None} | {"objective": objective}
    run = run.model_copy(update=changed)
    check(run, config, cuda=True)
    sequences = run.copies * run.micro_batch_size
    if run.batch_size % sequences:
        raise ValueError(
            f"pretrain.batch_size {run.batch_size} must be a multiple of data-parallel devices x micro_batch_size "
            f"= {run.copies} x {run.micro_batch_size}: set it to {-(-run.batch_size // sequences) * sequences}"
        )
    return run


def _memory(config: TransformerConfig, run: PretrainConfig, settings: PlanConfig) -> list[DeviceMemory]:
    """The run's memory in each type, at each ZeRO stage, with and without full checkpointing, where supported."""
    found = []
    stages = (0, 1, 2, 3) if settings.zero_stage is None else (settings.zero_stage,)
    for dtype, stage, checkpointing in product(_TRAINED, stages, (False, True)):
        kept = "none" if run.activation_checkpointing == "full" else run.activation_checkpointing
        how = "full" if checkpointing else kept
        way = run.model_copy(update={"dtype": dtype, "zero_stage": stage, "activation_checkpointing": how})
        if violation(way, config, cuda=True) is None:
            found.append(
                device_memory(
                    config,
                    layout_of(way),
                    dtype=dtype,
                    optimizer=run.optimizer,
                    micro_batch_size=run.micro_batch_size,
                    micro_batches=run.batch_size // (run.copies * run.micro_batch_size),
                    checkpointing=checkpointing,
                    offload=run.offload,
                )
            )
    return found


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
