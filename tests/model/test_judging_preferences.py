"""Win rates and Bradley-Terry strengths: values, intervals, ties, and data that leave a strength open."""

import math

import numpy as np
import pytest

from sluice.model.evaluation.judging.preferences import Preference, bradley_terry, win_rate


def preferences(*results, prompts=None):
    """(first, second, outcome) one after the other, each about a prompt of its own."""
    return [
        Preference(first, second, outcome, str(number) if prompts is None else prompts[number])
        for number, (first, second, outcome) in enumerate(results)
    ]


def times(count, *result):
    return [result] * count


def test_ties_are_half_a_win_wherever_the_model_stands():
    found = win_rate(
        preferences(*times(30, "a", "b", "first"), *times(10, "b", "a", "first"), *times(20, "b", "a", "tie")), "a"
    )
    assert found.value == pytest.approx(40 / 60) and (found.wins, found.losses, found.ties) == (30, 10, 20)
    assert 0.5 < found.interval.low < found.value < found.interval.high < 0.8


@pytest.mark.parametrize(("outcome", "value"), [("first", 1), ("second", 0), ("tie", 0.5)])
def test_no_interval_is_a_point(outcome, value):
    found = win_rate(preferences(*times(20, "a", "b", outcome)), "a")
    assert found.value == value and found.interval.high - found.interval.low > 0.1


def test_preferences_about_one_prompt_are_one_cluster():
    results = [("a", "b", "first" if number < 70 else "second") for number in range(100)]
    apart = win_rate(preferences(*results), "a")
    together = win_rate(preferences(*results, prompts=[str(number // 10) for number in range(100)]), "a")
    assert (apart.prompts, together.prompts) == (100, 10)
    assert together.interval.high - together.interval.low > 2 * (apart.interval.high - apart.interval.low)
    assert win_rate(preferences(*results, prompts=["one"] * 100), "a").interval == (0, 1)


def test_two_models_have_the_log_odds_of_their_win_rate():
    found = bradley_terry(
        preferences(*times(75, "a", "b", "first"), *times(15, "a", "b", "second"), *times(10, "b", "a", "tie"))
    )
    assert list(found) == ["a", "b"]
    assert found["a"].value - found["b"].value == pytest.approx(math.log(80 / 20))
    assert found["a"].value == pytest.approx(-found["b"].value)
    assert 0 < found["a"].interval.low < found["a"].value < found["a"].interval.high


def test_agresti_s_baseball_example():
    # Agresti, Categorical Data Analysis (2002), table 10.10: wins of seven teams; log-odds against Baltimore.
    teams = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
    wins = [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
    results = [(teams[i], teams[j], "first") for i in range(7) for j in range(7) for _ in range(wins[i][j])]
    found = bradley_terry(preferences(*results))
    against = {name: found[name].value - found["Baltimore"].value for name in teams}
    expected = [1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0]
    assert list(against.values()) == pytest.approx(expected, abs=1e-3)


def test_intervals_cover_the_true_strengths():
    generator = np.random.default_rng(2)
    true = {"a": 0.8, "b": 0.1, "c": -0.9}
    pairs = [("a", "b"), ("b", "c"), ("a", "c")]
    covered = 0
    for _ in range(200):
        results = []
        for first, second in pairs * 30:
            chance = 1 / (1 + math.exp(true[second] - true[first]))
            results.append((first, second, "first" if generator.random() < chance else "second"))
        found = bradley_terry(preferences(*results))
        covered += sum(each.interval.low <= true[name] <= each.interval.high for name, each in found.items())
    assert covered >= 0.93 * 600


def test_a_model_that_never_lost_has_no_upper_end():
    found = bradley_terry(
        preferences(*times(9, "top", "b", "first"), *times(5, "b", "c", "first"), *times(4, "b", "c", "second"))
    )
    assert list(found) == ["top", "b", "c"]
    assert found["top"].interval.high == math.inf and math.isfinite(found["top"].interval.low)
    assert found["c"].interval.low == -math.inf and all(math.isfinite(each.value) for each in found.values())


def test_one_prompt_bounds_no_strength():
    found = bradley_terry(preferences(*times(3, "a", "b", "first"), *times(2, "a", "b", "second"), prompts=["p"] * 5))
    assert found["a"].interval == (-math.inf, math.inf)


def test_models_that_nothing_connects_are_refused():
    with pytest.raises(ValueError, match="no comparison connects these groups of models: a, b; c, d"):
        bradley_terry(preferences(("a", "b", "first"), ("c", "d", "tie")))


def test_what_is_no_comparison_is_refused():
    with pytest.raises(ValueError, match="no preferences"):
        bradley_terry([])
    with pytest.raises(ValueError, match="compared with itself"):
        bradley_terry(preferences(("a", "a", "tie")))
    with pytest.raises(ValueError, match="needs at least one"):
        win_rate([], "a")
    with pytest.raises(ValueError, match="no comparison with a"):
        win_rate(preferences(("b", "c", "tie")), "a")
