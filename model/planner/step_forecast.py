"""Forecast of a step on this machine, from its measured rates, and its comparison with a real step."""

from collections import Counter
from math import prod

from sluice.model.architecture.config import TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.layout import Layout
from sluice.model.parallelism.optimizers import OPTIMIZERS
from sluice.model.planner.activations import input_bytes, layer_bytes
from sluice.model.planner.base import WEIGHT_BYTES, Record
from sluice.model.planner.memory import device_memory
from sluice.model.planner.weights import Stack, list_layers, list_weights


class Product(Record):
    """A linear layer's matrix."""

    rows: int
    """Tokens of a micro-batch."""
    inputs: int
    outputs: int


class Attending(Record):
    """The tokens that one attention sees."""

    stack: Stack
    window: int | None
    """None: no window, or one as long as the sequence."""
    is_cross: bool = False

    def causal(self, config: TransformerConfig) -> bool:
        return self.stack == "decoder" and config.kind != "encoder" and not self.is_cross


class Rates(Record):
    """Measured rates of this machine at the shapes of the model."""

    products_s: list[float]
    """Seconds of each of `list_products`: forward, and both products of the backward pass."""
    attention_s: list[float]
    """Seconds of the attention kernel of each of `list_attentions`, forward and backward."""
    scan_s: float
    """Seconds of the scan of one state space layer, forward and backward."""
    kept_bytes_per_s: float
    """Rate of element-wise work: bytes kept for the backward pass over the seconds of both passes."""
    bytes_per_s: float
    """Read and written in place, one operation after another."""


class StepForecast(Record):
    """Forecast of one optimizer step of one worker that has `threads` threads to itself."""

    step_s: float
    memory_bytes: int


class StepMeasured(Record):
    """A real step."""

    step_s: float
    """CPU-seconds over threads: without other work on this machine."""
    clock_s: float
    """Wall-clock seconds, with other work."""
    memory_bytes: int
    """Peak of the process over its memory before the model was built."""


class ForecastCheck(Record):
    """Forecast and measurement; `skipped` is the reason for a missing measurement."""

    threads: int
    micro_batches: int
    forecast: StepForecast | None = None
    measured: StepMeasured | None = None
    step_error: float | None = None
    """(forecast - measured) / measured."""
    clock_error: float | None = None
    memory_error: float | None = None
    skipped: str | None = None


def worker_memory_bytes(config: TransformerConfig, run: PretrainConfig) -> int:
    """Memory of a single process that takes the step of one worker.

    It steps by plain PyTorch, which keeps moments in the weights' type and no float32 copy of bf16 weights.
    """
    memory = device_memory(
        config,
        Layout(),
        dtype=run.dtype,
        optimizer=run.optimizer,
        micro_batch_size=run.micro_batch_size,
        on_cpu=True,
    )
    if run.dtype == "fp32":
        return memory.total_bytes
    weights = memory.parameters_bytes // 2
    moments = (memory.optimizer_bytes - 4 * weights) // 2
    return memory.total_bytes - memory.optimizer_bytes + moments


def list_products(config: TransformerConfig, tokens: int) -> dict[Product, float]:
    """The products of a micro-batch of `tokens` tokens, and the number of each; those of experts at their share."""
    found: dict[Product, float] = {}
    for weight in list_weights(config):
        if not weight.is_product:
            continue
        count, rows = 1, tokens
        if len(weight.shape) == 3 and weight.component == "experts":
            assert config.mixture is not None
            count = weight.shape[0]
            rows = max(1, tokens * config.mixture.per_token // config.mixture.experts)
        product = Product(rows=rows, inputs=weight.shape[-1], outputs=weight.shape[-2])
        found[product] = found.get(product, 0) + count
    head = Product(rows=tokens, inputs=config.hidden_size, outputs=config.vocab_size)
    found[head] = found.get(head, 0) + 1
    return found


def list_attentions(config: TransformerConfig) -> Counter[Attending]:
    """The distinct attentions by the tokens that they see, and the number of each."""
    found: Counter[Attending] = Counter()
    for stack, number in list_layers(config):
        kind = (config.encoder_kinds if stack == "encoder" else config.layer_kinds)[number]
        if kind != "state_space":
            bounded = kind == "window" and config.window is not None and config.window < config.context
            found[Attending(stack=stack, window=config.window if bounded else None)] += 1
        if stack == "decoder" and config.kind == "encoder-decoder":
            found[Attending(stack=stack, window=None, is_cross=True)] += 1
    return found


def forecast_step(config: TransformerConfig, run: PretrainConfig, rates: Rates, micro_batches: int) -> StepForecast:
    """Seconds and bytes of a step of `micro_batches` micro-batches, by the rates of this machine."""
    tokens = run.micro_batch_size * config.context
    products = list_products(config, tokens)
    assert len(products) == len(rates.products_s), f"{len(rates.products_s)} rates for {len(products)} products"
    arithmetic = sum(count * seconds for count, seconds in zip(products.values(), rates.products_s, strict=True))
    scans = config.layer_kinds.count("state_space")
    attentions = list_attentions(config)
    assert len(attentions) == len(rates.attention_s), f"{len(rates.attention_s)} rates for {len(attentions)} attentions"
    attention = sum(count * seconds for count, seconds in zip(attentions.values(), rates.attention_s, strict=True))
    mixers = attention + rates.scan_s * scans
    # Kept for the backward pass, without probabilities: their time is the attention kernel's.
    batch, length = run.micro_batch_size, config.context
    kept_bytes = input_bytes(config, dtype=run.dtype, batch=batch, length=length) + sum(
        layer_bytes(config, layer, dtype=run.dtype, batch=batch, length=length, kernel="flash", on_cpu=True)
        for layer in list_layers(config)
    )
    micro = arithmetic + mixers + kept_bytes / rates.kept_bytes_per_s
    flops_per_s = sum(6 * each.rows * each.inputs * each.outputs for each in products) / sum(rates.products_s)
    # The optimizer passes over memory, and computes the products of Newton-Schulz steps.
    size_bytes = flops = 0
    for weight in list_weights(config):
        rule = OPTIMIZERS[run.optimizer].rule(is_matrix=weight.is_product)
        size_bytes += rule.passes * WEIGHT_BYTES["fp32"] * weight.size
        if rule.newton_schulz_steps:
            *stack, rows, columns = weight.shape
            short, long = sorted((rows, columns))
            # A = X X^T, A A, and their sum times X (Jordan et al., 2024).
            flops += rule.newton_schulz_steps * prod(stack) * 2 * (2 * short**2 * long + short**3)
    optimizer_s = size_bytes / rates.bytes_per_s + flops / flops_per_s
    return StepForecast(step_s=micro_batches * micro + optimizer_s, memory_bytes=worker_memory_bytes(config, run))


def forecast_check(threads: int, micro_batches: int, forecast: StepForecast, measured: StepMeasured) -> ForecastCheck:
    """The forecast beside the measurement, with relative errors."""
    return ForecastCheck(
        threads=threads,
        micro_batches=micro_batches,
        forecast=forecast,
        measured=measured,
        step_error=forecast.step_s / measured.step_s - 1,
        clock_error=forecast.step_s / measured.clock_s - 1,
        memory_error=forecast.memory_bytes / measured.memory_bytes - 1,
    )
