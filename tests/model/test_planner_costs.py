"""Time, energy, money and the scaling laws: arithmetic against the papers' own figures."""

import math

import pytest
from architecture_fixtures import ENCODERS, shape
from hypothesis import given
from hypothesis import strategies as st

from sluice.model.config import PretrainConfig
from sluice.model.planner.accelerators import DEVICES
from sluice.model.planner.compute_optimal import BESIROGLU, CHINCHILLA, ParametricLaw, optima, optimal_tokens
from sluice.model.planner.plan import plan
from sluice.model.planner.settings import PlanConfig, read_plan_settings
from sluice.model.planner.throughput import run_cost


def test_a_run_on_known_devices() -> None:
    # 7 billion weights on a trillion tokens at 6 N D, 1,000 A100s at half of their peak: a little over three days.
    cost = run_cost(
        DEVICES["a100-80"],
        devices=1000,
        training_flops_per_token=6 * 7e9,
        tokens=10**12,
        tokens_per_step=4 * 10**6,
        mfu=0.5,
        pue=1.1,
        price_per_hour=2.0,
    )
    assert cost.total_s is not None and cost.tokens_per_s is not None and cost.step_s is not None
    assert cost.total_s == pytest.approx(6 * 7e21 / (1000 * 312e12 * 0.5))
    assert cost.model_dump(mode="json")["days"] == pytest.approx(3.116, rel=1e-3)
    assert cost.tokens_per_s * cost.step_s == pytest.approx(4e6)
    assert cost.energy_kwh == pytest.approx(1000 * 0.4 * 1.1 * cost.total_s / 3600)
    assert cost.price == pytest.approx(1000 * 2.0 * cost.total_s / 3600)


@pytest.mark.parametrize(
    ("change", "said"), [({"mfu": 0.0}, "mfu 0.0"), ({"mfu": 1.5}, "mfu 1.5"), ({"pue": 0.9}, "pue")]
)
def test_an_impossible_assumption_is_refused(change: dict[str, float], said: str) -> None:
    given_ = {"devices": 1, "training_flops_per_token": 1.0, "tokens": 1, "tokens_per_step": 1, "mfu": 0.5} | change
    with pytest.raises(ValueError, match=said):
        run_cost(DEVICES["h200"], **given_)  # type: ignore[arg-type]


def test_devices_are_plausible() -> None:
    for name, device in DEVICES.items():
        assert device.name == name
        assert 5e13 < device.peak_flops_per_s < 3e15
        assert 20 * 2**30 < device.memory_bytes < 200 * 2**30
        assert device.bandwidth_bytes_per_s is not None
        # Even the fastest of them does more than fifty FLOPs a byte that it reads.
        assert device.peak_flops_per_s / device.bandwidth_bytes_per_s > 50


@given(flops=st.floats(1e15, 1e28), law=st.sampled_from([CHINCHILLA, BESIROGLU]), off=st.floats(1.05, 3))
def test_the_optimum_spends_the_budget_and_beats_its_neighbours(flops: float, law: ParametricLaw, off: float) -> None:
    parameters, tokens = law.optimum(flops)
    assert 6 * parameters * tokens == pytest.approx(flops)
    best = law.loss(parameters, tokens)
    assert best < law.loss(parameters * off, tokens / off)
    assert best < law.loss(parameters / off, tokens * off)
    assert law.flops_for(parameters) == pytest.approx(flops)


def test_the_laws_say_what_their_papers_say() -> None:
    # Gopher's budget, 5.76e23: a model of 40 to 70 billion (arXiv 2203.15556, section 3.4 and table 3).
    by_law = {each.law: each for each in optima(5.76e23)}
    assert 3.2e10 < by_law["chinchilla"].parameters < 4.2e10
    assert 6.3e10 < by_law["20 tokens a parameter"].parameters < 7.5e10
    # The corrected fit agrees with 20 tokens a parameter (arXiv 2404.10102, figure 5).
    assert 15 < by_law["besiroglu"].tokens / by_law["besiroglu"].parameters < 30
    # One PF-day: 1.3 billion weights, 20 billion tokens (arXiv 2001.08361, appendix A).
    kaplan = optima(8.64e19)[0]
    assert (kaplan.parameters, kaplan.tokens) == pytest.approx((1.3e9, 2e10))
    assert by_law["besiroglu"].loss is not None and 1.8 < by_law["besiroglu"].loss < 2.1
    assert optimal_tokens(70e9)["20 tokens a parameter"] == 1.4e12


@pytest.mark.parametrize("flops", [0.0, -1.0, math.nan])
def test_no_budget_is_refused(flops: float) -> None:
    with pytest.raises(ValueError, match="trains nothing"):
        optima(flops)


def test_the_plan_of_a_run() -> None:
    config = shape({"context": 32})
    run = PretrainConfig(steps=100, batch_size=32, workers=2, micro_batch_size=8)
    found = plan(config, run)
    assert (found.tokens_per_step, found.tokens) == (32 * 32, 100 * 32 * 32)
    assert found.training_flops == pytest.approx(found.flops.training * found.tokens) == found.compute_budget_flops
    rows = [(row.dtype, row.zero_stage, row.checkpointing) for row in found.memory]
    assert rows[:3] == [("fp32", 0, False), ("fp32", 0, True), ("fp32", 1, False)] and len(rows) == 14
    assert [cost.device for cost in found.costs] == list(DEVICES)
    assert {cost.devices for cost in found.costs} == {2}
    assert found.machine is None and found.check is None
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_settings_narrow_the_plan() -> None:
    config = shape({"context": 32, "kv_heads": 4, "layers": 4})
    run = PretrainConfig(steps=10, batch_size=32, workers=1, micro_batch_size=8)
    settings = PlanConfig(device="h200", devices=16, tensor=4, pipeline=2, tokens=10**9, flops=1e20, context=16)
    found = plan(config, run, settings)
    assert [cost.device for cost in found.costs] == ["h200"] and found.costs[0].devices == 16
    # A pipeline goes with ZeRO 0 and 1 only.
    assert {row.zero_stage for row in found.memory} == {0, 1}
    assert (found.tokens, found.compute_budget_flops, found.layout.data) == (10**9, 1e20, 2)
    assert {each.context for each in found.serving} == {16}
    with pytest.raises(ValueError, match=r"batch_size 32 must be a multiple of .* = 16 x 8"):
        plan(config, run, PlanConfig(devices=16))


def test_an_encoder_has_neither_cache_nor_users() -> None:
    found = plan(shape({"kind": "encoder"}), PretrainConfig(workers=1))
    assert found.kv_cache == [] == found.serving


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gpu": 1}, r"unknown key 'plan.gpu': allowed are context, device, "),
        ({"device": "h300"}, r"plan.device=h300: .*'h200'"),
        ({"mfu": 2}, r"plan.mfu=2: input should be less than or equal to 1"),
        ({"tokens": "many"}, r"plan.tokens=many"),
        ({"tokens": "inf"}, r"plan.tokens=inf"),
        ({"zero_stage": 4}, r"plan.zero_stage=4"),
        ({"flops": "inf"}, r"plan.flops=inf: input should be a finite number"),
    ],
)
def test_a_wrong_setting_is_one_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_plan_settings(values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("values", [{"context": 8}, {"serving_devices": 2}])
def test_what_says_how_to_serve_is_refused_for_an_encoder(values: dict[str, float]) -> None:
    config, (name,) = shape(ENCODERS["bert"]), values
    assert plan(config, PretrainConfig()).serving == []
    with pytest.raises(ValueError, match=f"plan.{name} has no effect: an encoder"):
        plan(config, PretrainConfig(), read_plan_settings(values))


def test_budgets_may_be_written_in_powers() -> None:
    assert read_plan_settings({"tokens": "2e12", "flops": "1e23"}) == PlanConfig(tokens=2 * 10**12, flops=1e23)
