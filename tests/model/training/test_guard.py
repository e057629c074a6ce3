"""Leaving out steps: noise passes, spikes do not, and a lasting change is followed."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.training.optimization.guard import StepGuard, outlier

_RUNS, _STEPS = 20, 1000


def noisy_steps(seed: int, steps: int) -> list[tuple[float, float]]:
    """(loss, norm) of a run that learns: a falling loss with noise, and a norm whose noise is lognormal."""
    draw = random.Random(seed)
    return [(2 + 5 * 0.99**i + draw.gauss(0, 0.05), draw.lognormvariate(0, 0.2)) for i in range(steps)]


def skipped(guard: StepGuard, steps: list[tuple[float, float]]) -> list[int]:
    """Which steps are left out."""
    found = []
    for i, (loss, norm) in enumerate(steps):
        if guard.judge(loss, norm):
            found.append(i)
        guard.observe(loss, norm)
    return found


def test_noise_is_hardly_ever_left_out() -> None:
    false = sum(len(skipped(StepGuard(6.0), noisy_steps(seed, _STEPS))) for seed in range(_RUNS))
    assert false / (_RUNS * _STEPS) < 0.0005


@pytest.mark.parametrize("which", ["loss", "norm"])
def test_planted_spikes_are_all_left_out(which: str) -> None:
    steps, planted = noisy_steps(1, 800), [300, 301, 302, 450, 799]
    for i in planted:
        loss, norm = steps[i]
        steps[i] = (loss + 3, norm) if which == "loss" else (loss, 30 * norm)
    assert skipped(StepGuard(6.0), steps) == planted


def test_a_lasting_change_is_followed() -> None:
    steps = noisy_steps(2, 400)
    higher = [(loss, norm + 20) for loss, norm in noisy_steps(3, 300)]
    found = skipped(StepGuard(6.0), steps + higher)
    assert found and found == list(range(400, 400 + len(found))) and len(found) < 64


def test_the_reason_states_the_comparison() -> None:
    assert outlier("loss", 9.0, [1.0, 3.0] * 8, 6.0) == "loss 9 > 8, 6 sigma above the mean 2, n=16"
    assert outlier("loss", 8.0, [1.0, 3.0] * 8, 6.0) is None
    assert outlier("loss", -50.0, [1.0, 3.0] * 8, 6.0) is None
    assert outlier("gradient norm", float("nan"), [1.0, 3.0], 6.0) == "gradient norm nan is not finite"


def test_too_few_steps_judge_nothing() -> None:
    guard = StepGuard(1.0, window=8)
    for _ in range(4):
        assert guard.judge(1e9, 1e9) is None
        guard.observe(1.0, 1.0)
    assert guard.judge(1e9, 1.0)


def test_equal_values_leave_room_for_rounding() -> None:
    assert outlier("loss", 2.0 + 1e-9, [2.0] * 64, 6.0) is None


def test_what_is_not_finite_does_not_enter() -> None:
    guard = StepGuard(6.0, window=8)
    for loss, norm in noisy_steps(4, 10):
        guard.observe(loss, norm)
    before = guard.state_dict()
    assert guard.judge(float("inf"), 1.0) and guard.judge(1.0, float("nan"))
    guard.observe(float("inf"), float("nan"))
    assert guard.state_dict() == before


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, 200), seed=st.integers(0, 5))
def test_its_state_survives_json_to_the_last_bit(cut: int, seed: int) -> None:
    steps = noisy_steps(seed, 260)
    steps[230] = (50.0, 1.0)
    whole, first, second = StepGuard(4.0, 64), StepGuard(4.0, 64), StepGuard(4.0, 64)
    expected = skipped(whole, steps)
    early = skipped(first, steps[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert early + [cut + i for i in skipped(second, steps[cut:])] == expected and 230 in expected
    assert second.state_dict() == whole.state_dict()


def test_settings_that_judge_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma 0"):
        StepGuard(0.0)
