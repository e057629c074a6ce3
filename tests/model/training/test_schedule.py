from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.training.optimization.schedule import Schedule, learning_rate_scale

NAMES = ("wsd", "cosine", "linear", "inverse_sqrt")


def curve(steps: int, warmup: int, decay: float, last: float, **how: Any) -> list[float]:
    return [
        learning_rate_scale(step, steps, warmup_steps=warmup, decay_fraction=decay, last=last, **how)
        for step in range(steps)
    ]


def test_warmup_then_linear_decay() -> None:
    assert curve(9, 3, 1.0, 0.0) == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


def test_plateau_before_the_decay() -> None:
    assert curve(10, 1, 0.5, 0.2) == pytest.approx([0.5, 1, 1, 1, 1, 0.84, 0.68, 0.52, 0.36, 0.2])


def test_half_a_cosine() -> None:
    assert curve(7, 2, 1.0, 0.2, schedule="cosine") == pytest.approx(
        [1 / 3, 2 / 3, 1.0, 0.8828427, 0.6, 0.3171573, 0.2]
    )


def test_a_line_is_wsd_that_decays_from_the_warmup_on() -> None:
    assert curve(9, 3, 1.0, 0.1, schedule="linear") == pytest.approx(curve(9, 3, 1.0, 0.1))


def test_inverse_square_root_down_to_its_floor() -> None:
    assert curve(400, 3, 1.0, 0.15, schedule="inverse_sqrt")[3:16:12] == pytest.approx([1.0, 0.5])
    assert curve(400, 3, 1.0, 0.15, schedule="inverse_sqrt")[-1] == 0.15


@given(
    steps=st.integers(1, 400),
    warmup=st.integers(0, 500),
    decay=st.floats(0.01, 1.0),
    last=st.floats(0.0, 1.0),
    schedule=st.sampled_from(NAMES),
)
def test_rises_once_then_never_again(steps: int, warmup: int, decay: float, last: float, schedule: Schedule) -> None:
    values = curve(steps, warmup, decay, last, schedule=schedule)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert all(after <= before + 1e-12 for before, after in pairwise(values[peak:]))
    assert max(values) == 1.0 and min(values) >= 0.0
    if steps > warmup + 1 and schedule != "inverse_sqrt":
        assert values[-1] == pytest.approx(last)


@given(steps=st.integers(100, 400), warmup=st.integers(20, 50), schedule=st.sampled_from(NAMES))
def test_no_step_falls_off_the_one_before(steps: int, warmup: int, schedule: Schedule) -> None:
    values = curve(steps, warmup, 0.5, 0.0, schedule=schedule)
    # The steepest is a cosine's middle: pi/2 over the steps that it has.
    assert all(
        abs(after - before) <= 1.6 / min(steps // 2, steps - warmup - 1, warmup) for before, after in pairwise(values)
    )


@settings(deadline=None)
@given(steps=st.integers(20, 400), data=st.data())
def test_a_branch_decays_from_any_step_of_the_plateau(steps: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(6, steps - 1))
    branch = curve(steps, 5, 1.0, 0.1, decay_start=start)
    assert branch == curve(steps, 5, (steps - start) / steps, 0.1)
    assert branch[5:start] == [1.0] * (start - 5)
    # What the plateau's own run had until then.
    assert branch[:start] == curve(10 * steps, 5, 0.5, 0.1)[:start]


@pytest.mark.parametrize("start", [5, 20, 30])
def test_a_branch_outside_the_plateau_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match=f"from step {start} must start after the 5 steps of warm-up"):
        learning_rate_scale(10, 20, warmup_steps=5, decay_fraction=1.0, last=0.0, decay_start=start)
