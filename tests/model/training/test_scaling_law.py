"""A law that made the losses is found again, its band holds the truth, and no other size is better for a budget."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.training.search.scaling import Law, Run, advise, bootstrap, fit

SIZES, LENGTHS = (10_000, 30_000, 100_000, 300_000), (200_000, 400_000, 800_000)
TRUTH = Law(1.2, 40.0, 300.0, 0.4, 0.5)


def runs_of(law: Law, noise: float = 0.0, seed: int = 0) -> list[Run]:
    generator = np.random.default_rng(seed)
    return [
        Run(size, length, law.loss(size, length) * float(np.exp(generator.normal(0, noise))))
        for size in SIZES
        for length in LENGTHS
    ]


def test_a_law_without_noise_is_found_again() -> None:
    found = fit(runs_of(TRUTH))
    for size, length in ((50_000, 300_000), (3_000_000, 20_000_000)):
        assert found.loss(size, length) == pytest.approx(TRUTH.loss(size, length), rel=1e-3)
    assert found.best(1e14)[0] == pytest.approx(TRUTH.best(1e14)[0], rel=0.02)


def test_the_band_holds_the_truth_and_is_wider_with_more_noise() -> None:
    widths = []
    for noise in (0.0005, 0.004):
        runs = runs_of(TRUTH, noise)
        law = fit(runs)
        advice = advise(runs, law, bootstrap(runs, law, 20, seed=0), 1e12)
        assert advice.parameters.low <= advice.parameters.value <= advice.parameters.high
        assert advice.loss.low <= advice.loss.value <= advice.loss.high
        widths.append(advice.parameters.high / advice.parameters.low)
        assert advice.loss.low * 0.97 <= TRUTH.loss(*TRUTH.best(1e12)) <= advice.loss.high * 1.03
        assert advice.beyond == pytest.approx(1e12 / (6 * 300_000 * 800_000))
    assert widths[1] > widths[0] >= 1


def test_equal_runs_give_equal_bands() -> None:
    runs = runs_of(TRUTH, 0.002)
    law = fit(runs)
    assert bootstrap(runs, law, 2, seed=3) == bootstrap(runs, law, 2, seed=3) != bootstrap(runs, law, 2, seed=4)


@settings(max_examples=50, deadline=None)
@given(
    flops=st.floats(1e10, 1e20),
    alpha=st.floats(0.1, 0.9),
    beta=st.floats(0.1, 0.9),
    aside=st.floats(0.2, 5.0).filter(lambda factor: abs(factor - 1) > 0.05),
)
def test_no_other_size_is_better_for_a_budget(flops: float, alpha: float, beta: float, aside: float) -> None:
    law = Law(1.0, 50.0, 400.0, alpha, beta)
    parameters, tokens = law.best(flops)
    assert 6 * parameters * tokens == pytest.approx(flops)
    assert law.loss(parameters, tokens) <= law.loss(parameters * aside, tokens / aside)


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 runs"):
        fit(runs_of(TRUTH)[:5])
    with pytest.raises(ValueError, match="two sizes and two lengths"):
        fit([Run(1000, 100 * length, 3.0) for length in range(1, 9)])
