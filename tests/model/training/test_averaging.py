"""The average of the weights: its closed form, and swapping it in and out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sluice.model.training.optimization.averaging import WeightAverage


def model_of(seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2).to(dtype)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


def walk(model: nn.Module, seed: int) -> None:
    """A step of some optimizer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator))


@settings(deadline=None, max_examples=25)
@given(decay=st.floats(0.1, 0.999), steps=st.integers(1, 40))
def test_it_is_the_weighted_mean_of_what_it_saw(decay: float, steps: int) -> None:
    model = model_of(0)
    average = WeightAverage(weights_of(model), decay)
    total, factors = torch.zeros(2, 3, dtype=torch.float64), 0.0
    for step in range(steps):
        walk(model, step)
        average.update()
        total = total * decay + model.weight.detach().double()
        factors = factors * decay + 1
    torch.testing.assert_close(average.state()["weight"].double(), total / factors, atol=1e-4, rtol=1e-4)
    assert average.updates == steps


def test_weights_of_before_the_training_are_not_in_it() -> None:
    model = model_of(0)
    average = WeightAverage(weights_of(model), 0.99)
    walk(model, 0)
    average.update()
    assert torch.equal(average.state()["weight"], model.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapped_in_and_out_to_the_last_bit(dtype: torch.dtype) -> None:
    model = model_of(0, dtype)
    average = WeightAverage(weights_of(model), 0.5)
    for step in range(3):
        walk(model, step)
        average.update()
    before, place = model.weight.detach().clone(), model.weight.data_ptr()
    with average.swapped():
        assert torch.equal(model.weight, average.state()["weight"].to(dtype)) and model.weight.data_ptr() == place
        assert not torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)
    with pytest.raises(RuntimeError, match="validation"), average.swapped():
        raise RuntimeError("validation failed")
    assert torch.equal(model.weight, before)


def test_it_goes_on_from_its_state_to_the_last_bit() -> None:
    whole, model = model_of(0), model_of(0)
    average, early = WeightAverage(weights_of(whole), 0.9), WeightAverage(weights_of(model), 0.9)
    for step in range(8):
        walk(whole, step)
        average.update()
    for step in range(5):
        walk(model, step)
        early.update()
    late = WeightAverage(weights_of(model), 0.9)
    late.load({name: value.clone() for name, value in early.state().items()}, early.updates)
    for step in range(5, 8):
        walk(model, step)
        late.update()
    assert all(torch.equal(average.state()[name], value) for name, value in late.state().items())


def test_another_models_state_is_refused() -> None:
    average = WeightAverage(weights_of(model_of(0)), 0.9)
    with pytest.raises(ValueError, match=r"differ in other"):
        average.load({**average.state(), "other": torch.zeros(1)}, 3)
    with pytest.raises(ValueError, match="decay 1"):
        WeightAverage({}, 1.0)
