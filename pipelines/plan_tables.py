"""A plan as tables for a person, no wider than 100 columns."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from sluice.model.planner.plan import Plan
from sluice.model.planner.weights import COMPONENTS

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 100


def render(plan: Plan) -> str:
    """Plain text, without colours: a plan is as often kept as read."""
    import io

    from rich.console import Console

    sections: list[Callable[[Plan], Iterator[Table | str]]] = [
        _model,
        _parameters,
        _arithmetic,
        _cache,
        _memory,
        _costs,
        _serving,
        _optimum,
        _machine,
    ]
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, no_color=True, highlight=False, markup=False)
    for section in sections:
        for part in section(plan):
            console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _titled(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator["Table | str"]:
    """A table below its title. The first column names the row, the others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    yield f"\n{title}"
    yield made


def _model(plan: Plan) -> Iterator["Table | str"]:
    shape = plan.shape
    seen = shape.layer_kinds.count("window")
    windows = f"; {seen} of {shape.layers} layers see {shape.window} tokens" if seen else ""
    layers = f"{len(shape.encoder_kinds)}+{shape.layers}" if shape.encoder_kinds else f"{shape.layers}"
    yield (
        f"{shape.kind}: {layers} layers, width {shape.hidden_size:,}, {shape.heads} heads over {shape.kv_heads} "
        f"key-value heads, vocabulary {shape.vocab_size:,}, context {shape.context:,}{windows}"
    )


def _parameters(plan: Plan) -> Iterator["Table | str"]:
    counts = plan.parameters
    rows = [(name.replace("_", "-"), getattr(counts, name)) for name in COMPONENTS if getattr(counts, name)]
    rows += [("total", counts.total), ("non-embedding", counts.non_embedding)]
    if counts.active != counts.total:
        rows.append(("active a token", counts.active))
    yield from _titled(
        "Parameters", ("component", "weights", "share"), [(n, f"{v:,}", f"{v / counts.total:.1%}") for n, v in rows]
    )


def _arithmetic(plan: Plan) -> Iterator["Table | str"]:
    flops = plan.flops
    yield from _titled(
        f"Arithmetic a token, in sequences of {flops.length:,}",
        ("", "exact", "by 2N, 6N", "of the exact"),
        [
            (name, _flops(exact), _flops(estimate), f"{estimate / exact:.1%}")
            for name, exact, estimate in (
                ("forward", flops.forward, flops.forward_2n),
                ("training", flops.training, flops.training_6n),
            )
        ],
    )
    yield from _titled(
        "Attention's share of the forward pass, by length",
        ("", *(f"{each.length:,}" for each in plan.attention_share)),
        [("scores", *(f"{each.share:.1%}" for each in plan.attention_share))],
    )


def _cache(plan: Plan) -> Iterator["Table | str"]:
    if not plan.kv_cache:
        return
    rows = [
        (
            f"{size.sharing}, {size.kv_heads} key-value heads" + (" (this)" * (size.kv_heads == plan.shape.kv_heads)),
            size.dtype,
            f"{size.token_bytes:,} B",
            _bytes(size.context_bytes),
        )
        for size in plan.kv_cache
    ]
    yield from _titled("Cache of one sequence", ("heads", "type", "a further token", "full context"), rows)


def _memory(plan: Plan) -> Iterator["Table | str"]:
    layout = plan.layout
    rows = []
    for (dtype, stage), group in groupby(plan.memory, key=lambda each: (each.dtype, each.zero_stage)):
        ways = {each.checkpointing: each for each in group}
        states = next(iter(ways.values()))
        row = [
            f"{dtype}, ZeRO {stage}",
            _bytes(states.parameters_bytes),
            _bytes(states.gradients_bytes),
            _bytes(states.optimizer_bytes),
        ]
        for checkpointing in (False, True):
            if (way := ways.get(checkpointing)) is None:
                row += ["-", "-"]
            else:
                row += [_bytes(way.activations_bytes + way.workspace_bytes), _bytes(way.total_bytes)]
        rows.append(row)
    yield from _titled(
        f"Memory of the fullest of {layout.devices} devices: data {layout.data} x tensor {layout.tensor} x pipeline "
        f"{layout.pipeline}\nOptimizer {plan.optimizer} (pretrain.optimizer), micro-batch of {plan.micro_batch_size}; "
        f"last two columns: with checkpointing\nThe run: ZeRO {layout.zero_stage}, activation_checkpointing "
        f"{plan.activation_checkpointing}, offload {plan.offload}",
        ("", "weights", "gradients", "optimizer", "activations", "total", "activations", "total"),
        rows,
    )
    if most := max(each.host_bytes for each in plan.memory):
        yield f"offloaded, so in the host's memory instead: up to {_bytes(most)} a device"
    if plan.activation_checkpointing == "selective":
        yield "selective checkpointing is counted as none, an upper end"


def _costs(plan: Plan) -> Iterator["Table | str"]:
    first = plan.costs[0]
    rows: list[tuple[str, ...]] = []
    for cost, fit in zip(plan.costs, plan.fits, strict=True):
        if not fit.fits:
            rows.append((cost.device, f"no: {_bytes(fit.needed_bytes)} > {_bytes(fit.usable_bytes)}", *("-" * 5)))
            continue
        assert cost.tokens_per_s is not None and cost.step_s is not None and cost.total_s is not None
        row = (
            cost.device,
            f"ZeRO {fit.zero_stage}" + " + checkpointing" * fit.checkpointing + " in fp32" * (fit.dtype == "fp32"),
            _count(cost.tokens_per_s),
            _duration(cost.step_s),
            _duration(cost.total_s),
            "-" if cost.energy_kwh is None else f"{cost.energy_kwh:,.3g} kWh",
            "-" if cost.price is None else f"${cost.price:,.{0 if cost.price >= 100 else 2}f}",
        )
        rows.append(row)
    yield from _titled(
        f"Training on {first.devices:,} devices, {_count(plan.tokens)} tokens in steps of {plan.tokens_per_step:,}, at "
        f"{first.mfu:.0%} of the bf16 peak",
        ("device", "fits with", "tokens/s", "a step", "all", "energy", "price"),
        rows,
    )
    if not all(fit.fits for fit in plan.fits):
        yield "To make it fit: more devices, plan.tensor, plan.pipeline, a smaller pretrain.micro_batch_size"


def _serving(plan: Plan) -> Iterator["Table | str"]:
    if not plan.serving:
        return
    rows = []
    for _, each in groupby(plan.serving, key=lambda capacity: capacity.device):
        wide, narrow = each
        rates = ["-" if one.tokens_per_s is None else f"{one.tokens_per_s:,.1f}" for one in (wide, narrow)]
        rows.append((f"{wide.devices} x {wide.device}", f"{wide.users:,}", rates[0], f"{narrow.users:,}", rates[1]))
    first = plan.serving[0]
    yield from _titled(
        f"Users at a context of {first.context:,}, bf16 weights ({_bytes(first.weights_bytes)})",
        ("machine", "users, bf16 cache", "tokens/s each, at most", "users, int8", "tokens/s each, at most"),
        rows,
    )


_LAWS = {"kaplan": "kaplan (without embedding, least compute)"}


def _optimum(plan: Plan) -> Iterator["Table | str"]:
    rows = [
        (
            _LAWS.get(each.law, each.law),
            _count(each.parameters),
            _count(each.tokens),
            "-" if each.loss is None else f"{each.loss:.3f}",
        )
        for each in plan.compute_optimal
    ]
    yield from _titled(
        f"Compute-optimal for {plan.compute_budget_flops:.3g} FLOPs",
        ("law", "parameters", "tokens", "nats a token"),
        rows,
    )
    # The cross-entropy of a uniform guess, in nats.
    uniform = math.log(plan.shape.vocab_size)
    if any(each.loss is not None and each.loss > uniform for each in plan.compute_optimal):
        yield f"a uniform guess has {uniform:.3f}: budgets this small are outside of what the laws were fitted to"
    yield "tokens for this size: " + ", ".join(
        f"{_count(tokens)} by {law}" for law, tokens in plan.compute_optimal_tokens.items()
    )


def _machine(plan: Plan) -> Iterator["Table | str"]:
    if plan.machine is None or (check := plan.check) is None:
        return
    peak = f"This machine: {plan.machine.peak_flops_per_s / 1e9:,.0f} GFLOP/s in a matrix product"
    if check.forecast is None or check.measured is None:
        yield f"\n{peak}; no step measured: {check.skipped}"
        return
    assert check.step_error is not None and check.memory_error is not None
    yield from _titled(
        f"{peak}. One worker, {check.threads} threads, {check.micro_batches} micro-batches a step",
        ("", "forecast", "measured", "error"),
        [
            (
                "a step",
                _duration(check.forecast.step_s),
                _duration(check.measured.step_s),
                f"{check.step_error:+.0%}",
            ),
            ("a step, by the clock", "", _duration(check.measured.clock_s), f"{check.clock_error:+.0%}"),
            (
                "memory",
                _bytes(check.forecast.memory_bytes),
                _bytes(check.measured.memory_bytes),
                f"{check.memory_error:+.0%}",
            ),
        ],
    )


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" or size >= 1000 else f"{size:,.3g} {unit}"
        size /= 1024
    raise AssertionError("the last unit takes every size")


def _scaled(value: float, units: tuple[str, ...]) -> str:
    for unit in units:
        if value < 1000 or unit == units[-1]:
            return f"{value:,.4g} {unit}".rstrip()
        value /= 1000
    raise AssertionError("the last unit takes every value")


def _flops(value: float) -> str:
    return _scaled(value, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"))


def _count(value: float) -> str:
    return _scaled(value, ("", "k", "M", "B", "T"))


def _duration(seconds: float) -> str:
    for unit, size in (("years", 365.25 * 86_400), ("days", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds * 1000:,.1f} ms"
