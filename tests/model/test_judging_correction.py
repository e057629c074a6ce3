"""Rates corrected for a judge's errors: the estimate, what its interval contains, and where it says nothing."""

import math

import numpy as np
import pytest

from sluice.model.evaluation.judging.correction import Calibration, Counts, calibrate, corrected_rate, effective_counts


def calibration(sensitivity, specificity, each=100):
    return Calibration(Counts(sensitivity * each, each), Counts(specificity * each, each))


def test_the_rate_is_corrected_in_both_directions():
    judge = calibration(0.9, 0.8)
    # 0.6 true: the judge passes 0.6 * 0.9 + 0.4 * 0.2 = 0.62 of 1,000.
    found = corrected_rate(Counts(620, 1000), judge)
    assert found.value == pytest.approx(0.6) and found.judged == 0.62
    assert found.interval.low < 0.6 < found.interval.high


def test_a_perfect_judge_of_many_answers_changes_nothing():
    found = corrected_rate(Counts(700, 1000), calibration(1, 1, each=100_000))
    assert found.value == 0.7 and found.interval.low == pytest.approx(0.671, abs=2e-3)


def test_a_small_calibration_sample_widens_the_interval():
    widths = []
    for each in (20, 100, 10_000):
        low, high = corrected_rate(Counts(620, 1000), calibration(0.9, 0.8, each)).interval
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2] > 0.08


@pytest.mark.parametrize(
    "judge", [calibration(1, 0), calibration(0.5, 0.5), calibration(0.6, 0.55, 20), calibration(0, 0)]
)
def test_a_judge_that_always_passes_or_guesses_bounds_nothing(judge):
    found = corrected_rate(Counts(1000, 1000), judge)
    assert found.interval == (0.0, 1.0)


def test_no_calibration_and_no_answers_bound_nothing():
    empty = Counts(0, 0)
    assert corrected_rate(Counts(90, 100), Calibration(empty, empty)).interval == (0, 1)
    assert math.isnan(corrected_rate(Counts(90, 100), Calibration(empty, empty)).value)
    low, high = corrected_rate(empty, calibration(0.9, 0.9)).interval
    assert high - low > 0.9


def test_samples_that_contradict_each_other_bound_nothing():
    # Nothing passes, though the judge passes half of the bad answers.
    found = corrected_rate(Counts(0, 10_000), calibration(0.99, 0.5))
    assert found.interval == (0.0, 1.0) and found.value == 0


def test_no_interval_is_a_point_where_every_answer_passes():
    low, high = corrected_rate(Counts(200, 200), calibration(0.95, 0.95)).interval
    assert low < 0.99 and high == 1


def test_answers_of_one_cluster_count_as_few():
    passed = [number < 70 for number in range(100)]
    prompts = [f"p{number // 10}" for number in range(100)]
    assert effective_counts(passed) == Counts(70, 100)
    found = effective_counts(passed, prompts)
    assert found.successes / found.trials == pytest.approx(0.7) and found.trials == pytest.approx(10, rel=0.2)
    assert effective_counts([True] * 100, prompts).trials == pytest.approx(10)
    assert effective_counts(passed, [str(number) for number in range(100)]).trials == pytest.approx(100, rel=0.05)


def test_calibration_counts_the_errors_of_both_kinds():
    people = [True] * 10 + [False] * 20
    judged = [True] * 9 + [False] + [True] * 4 + [False] * 16
    assert calibrate(judged, people) == Calibration(Counts(9, 10), Counts(16, 20))


def test_impossible_counts_and_other_lengths_are_refused():
    with pytest.raises(ValueError, match="5 successes in 4 trials"):
        Counts(5, 4)
    with pytest.raises(ValueError, match="1 labels of the judge, but 2"):
        calibrate([True], [True, False])


@pytest.mark.parametrize(("rate", "q1", "q0", "n", "each"), [(0.9, 0.9, 0.7, 500, 25), (0.02, 0.6, 0.6, 2000, 15)])
def test_the_interval_covers_also_where_the_judge_is_weak(rate, q1, q0, n, each):
    generator = np.random.default_rng(4)
    passed = generator.binomial(n, rate * q1 + (1 - rate) * (1 - q0), 500)
    right = generator.binomial(each, [q1, q0], (500, 2))
    covered = 0
    for x, (positive, negative) in zip(passed, right, strict=True):
        judge = Calibration(Counts(positive, each), Counts(negative, each))
        low, high = corrected_rate(Counts(x, n), judge).interval
        covered += low <= rate <= high
    assert covered >= 0.94 * 500
