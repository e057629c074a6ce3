import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training.schedule import learning_rate_scale


def curve(steps: int, warmup: int, decay: float, last: float) -> list[float]:
    return [
        learning_rate_scale(step, steps, warmup_steps=warmup, decay_fraction=decay, last=last) for step in range(steps)
    ]


def test_warmup_then_linear_decay() -> None:
    assert curve(9, 3, 1.0, 0.0) == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


def test_plateau_before_the_decay() -> None:
    assert curve(10, 1, 0.5, 0.2) == pytest.approx([0.5, 1, 1, 1, 1, 0.84, 0.68, 0.52, 0.36, 0.2])


@given(
    steps=st.integers(1, 400),
    warmup=st.integers(0, 500),
    decay=st.floats(0.01, 1.0),
    last=st.floats(0.0, 1.0),
)
def test_rises_once_then_never_again(steps: int, warmup: int, decay: float, last: float) -> None:
    values = curve(steps, warmup, decay, last)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert max(values) == 1.0 and min(values) >= 0.0
    if steps > warmup + 1:
        assert values[-1] == pytest.approx(last)
