"""How soon the rollout's quality signals find changed answers, and how seldom they hold up equal ones."""

from statistics import median

import numpy as np
import pytest

from benchmarks.rollout.quality import known_answers, parity, simulate, text


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fifth_of_the_answers_changed_is_found_within_16_probes(seed: int) -> None:
    endings = simulate(lambda generator: parity(0.2, generator), 60, seed)
    assert {end.action for end in endings} == {"abort"}
    assert median(end.n for end in endings) <= 16


def test_equal_versions_are_seldom_dropped_or_held() -> None:
    assert simulate(lambda generator: parity(0.0, generator), 3, 1)[0].action == "advance"
    alike = simulate(lambda generator: known_answers(0.3, 0.3, generator), 40, 1)
    assert np.mean([end.action == "abort" for end in alike]) <= 0.05
    same = simulate(lambda generator: text(0.1, 0.1, generator), 20, 1)
    assert np.mean([end.action == "pause" for end in same]) <= 0.05
