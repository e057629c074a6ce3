"""The forecast for this machine, and the step that it is held against."""

import re

import pytest
import torch
from architecture_fixtures import CONTEXT, DECODERS, ENCODER_DECODERS, ENCODERS, lively, shape
from torch import Tensor

from sluice.model.architecture import kernels
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.optimizers import OPTIMIZERS, OptimizerName
from sluice.model.planner import step_measurement as measure_module
from sluice.model.planner.flops import count_flops
from sluice.model.planner.machine_rates import measure_matmul_flops, measure_rates
from sluice.model.planner.parameters import count_parameters
from sluice.model.planner.step_forecast import (
    Rates,
    StepMeasured,
    forecast_check,
    forecast_step,
    list_attentions,
    list_products,
    worker_memory_bytes,
)
from sluice.model.planner.step_measurement import MeasurementJob, check_forecast, measure
from sluice.model.training.optimization.optimizer import build_optimizer
from sluice.model.training.optimization.parameter_groups import parameter_groups

RUN = PretrainConfig(workers=2, batch_size=16, micro_batch_size=2)
FREE = 2**40


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixture", "hybrid"])
def test_the_products_are_the_forward_pass(name: str) -> None:
    config = shape(DECODERS[name])
    tokens = RUN.micro_batch_size * config.context
    listed = sum(
        2 * each.rows * each.inputs * each.outputs * count for each, count in list_products(config, tokens).items()
    )
    flops = count_flops(config)
    assert listed == RUN.micro_batch_size * (flops.sequence_forward - flops.scores - flops.scan)


def test_the_forecast_is_the_sum_of_its_rates() -> None:
    config = shape({})
    products = list_products(config, RUN.micro_batch_size * config.context)
    rates = Rates(
        products_s=[0.5] * len(products), attention_s=[2.0], scan_s=0.0, kept_bytes_per_s=1e30, bytes_per_s=1e30
    )
    found = forecast_step(config, RUN, rates, micro_batches=3)
    assert found.step_s == pytest.approx(3 * (0.5 * sum(products.values()) + 2.0 * config.layers))
    slow = forecast_step(config, RUN, rates.model_copy(update={"kept_bytes_per_s": 1e6}), micro_batches=3)
    assert slow.step_s > found.step_s
    assert found.memory_bytes == worker_memory_bytes(config, RUN)


@pytest.mark.parametrize(
    ("options", "windows", "causal", "counts"),
    [
        ({"layers": 5, "window": 4, "pattern": ("window", "window", "attention")}, [4, None], [True, True], [4, 1]),
        ({"window": CONTEXT, "pattern": ("window", "attention")}, [None], [True], [2]),
        (DECODERS["hybrid"], [None], [True], [1]),
        (DECODERS["mamba"], [], [], []),
        (ENCODERS["modern_encoder"], [3, None], [False, False], [1, 1]),
        # An encoder's layers, and of each decoder layer its own attention and the one to the source.
        (ENCODER_DECODERS["vaswani"], [None, None, None], [False, True, False], [1, 2, 2]),
    ],
)
def test_attentions_that_look_at_different_things_are_told_apart(
    options: dict[str, object], windows: list[int | None], causal: list[bool], counts: list[int]
) -> None:
    config = shape(options)
    found = list_attentions(config)
    assert [each.window for each in found] == windows
    assert [each.causal(config) for each in found] == causal
    assert list(found.values()) == counts


def test_each_attention_has_its_own_time() -> None:
    config = shape({"layers": 5, "window": 4, "pattern": ("window", "window", "attention")})
    products_s = [0.0] * len(list_products(config, RUN.micro_batch_size * config.context))
    products_s[0] = 1e-30
    rates = Rates(products_s=products_s, attention_s=[2.0, 7.0], scan_s=0.0, kept_bytes_per_s=1e30, bytes_per_s=1e30)
    assert forecast_step(config, RUN, rates, micro_batches=3).step_s == pytest.approx(3 * (4 * 2.0 + 7.0))


def test_a_full_attention_is_timed_as_one_beside_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    attend, asked = kernels.attend, []

    def noting(call: kernels.AttentionCall) -> Tensor:
        asked.append(int(call.mask.allowed.sum()))
        return attend(call)

    monkeypatch.setattr(kernels, "attend", noting)
    config = shape({"hidden_size": 64, "context": 48, "window": 16, "pattern": ("window", "attention")})
    window_s, full_s = measure_rates(config, RUN).attention_s
    assert min(window_s, full_s) > 0
    # Pairs of a query and a key, in the order of the rates.
    assert list(dict.fromkeys(asked)) == [16 * 17 // 2 + 32 * 16, 48 * 49 // 2]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_passes_over_every_weight(name: OptimizerName) -> None:
    """Lion's pass over the matrices of the layers was once left out."""
    config = shape({})
    products = list_products(config, RUN.micro_batch_size * config.context)
    rates = Rates(
        products_s=[1e-30] * len(products), attention_s=[0.0], scan_s=0.0, kept_bytes_per_s=1e30, bytes_per_s=4.0
    )
    run, traits = RUN.model_copy(update={"optimizer": name}), OPTIMIZERS[name]
    # At one float32 a second a step takes as many seconds as it moves floats.
    seconds = forecast_step(config, run, rates, micro_batches=1).step_s
    counts = count_parameters(config)
    others = counts.total - counts.matrices
    assert seconds == pytest.approx(traits.matrices.passes * counts.matrices + traits.others.passes * others)
    assert all(rule.passes or rule.newton_schulz_steps for rule in (traits.matrices, traits.others))


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_the_table_of_optimizers_names_the_moments_that_they_keep(name: OptimizerName) -> None:
    config, run = shape({}), RUN.model_copy(update={"optimizer": name})
    model = lively(config)
    optimizer, traits = build_optimizer(model, run), OPTIMIZERS[name]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    matrices = {id(each) for each in parameter_groups(model)["matrices"]}
    for parameter in model.parameters():
        kept = {key for key, value in optimizer.state[parameter].items() if value.shape == parameter.shape}
        assert kept == set(traits.rule(is_matrix=id(parameter) in matrices).moments)


def test_errors_are_of_what_was_measured() -> None:
    config = shape({})
    products_s = [0.1] * len(list_products(config, 48))
    rates = Rates(products_s=products_s, attention_s=[0.0], scan_s=0.0, kept_bytes_per_s=1e30, bytes_per_s=1e30)
    forecast = forecast_step(config, RUN, rates, 1)
    check = forecast_check(
        1, 1, forecast, StepMeasured(step_s=2 * forecast.step_s, clock_s=1.0, memory_bytes=forecast.memory_bytes // 2)
    )
    assert check.step_error == pytest.approx(-0.5)
    assert check.memory_error == pytest.approx(1.0)


@pytest.mark.parametrize(
    "options", [DECODERS["llama"], DECODERS["hybrid_mixture"], ENCODERS["bert"], ENCODER_DECODERS["t5"]]
)
def test_every_architecture_can_be_measured(options: dict[str, object]) -> None:
    threads = torch.get_num_threads()
    try:
        found = measure(MeasurementJob(config=shape(options), run=RUN, threads=1))
    finally:
        torch.set_num_threads(threads)
    assert min(*found.micro_batch_s, *found.optimizer_s, found.rates.bytes_per_s, *found.rates.products_s) > 0
    assert min(found.rates.attention_s) > 0


@pytest.mark.process
def test_the_step_runs_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "TIMEOUT_S", 600.0)
    config = shape({"hidden_size": 64, "vocab_size": 2_000, "context": 128})
    check = check_forecast(config, RUN, threads=1, peak_flops_per_s=1e11, free_bytes=FREE)
    assert check.skipped is None and check.forecast is not None and check.measured is not None
    assert check.micro_batches == 4
    assert check.step_error == check.forecast.step_s / check.measured.step_s - 1
    # A process that has built nothing would have held nothing.
    assert check.measured.memory_bytes > 2**20
    assert 1 / 2 < check.forecast.memory_bytes / check.measured.memory_bytes < 2


@pytest.mark.process
def test_a_busy_machine_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "TIMEOUT_S", 0.001)
    check = check_forecast(shape({}), RUN, threads=1, peak_flops_per_s=1e11, free_bytes=FREE)
    assert check.measured is None and check.skipped is not None and "did not end within" in check.skipped


@pytest.mark.parametrize(
    ("free_bytes", "peak", "said"),
    [(1, 1e15, "a worker needs .* GiB, and 0.0 GiB are free here"), (FREE, 1.0, "a micro-batch takes about .* s here")],
)
def test_what_is_too_large_is_not_measured(free_bytes: int, peak: float, said: str) -> None:
    check = check_forecast(shape({}), RUN, threads=1, peak_flops_per_s=peak, free_bytes=free_bytes)
    assert check.measured is None and check.step_error is None
    assert check.skipped is not None and re.match(said, check.skipped)


def test_micro_batches_are_those_of_a_copy_of_the_model() -> None:
    parts = RUN.model_copy(update={"workers": 8, "tensor_parallel": 2, "pipeline_stages": 2})
    check = check_forecast(shape({}), parts, threads=1, peak_flops_per_s=1e15, free_bytes=1)
    assert check.micro_batches == 16 // (2 * 2)


def test_measuring_leaves_the_thread_count_alone() -> None:
    before = torch.get_num_threads()
    assert measure_matmul_flops("fp32", threads=1, seconds=0.01) > 1e8
    assert torch.get_num_threads() == before
