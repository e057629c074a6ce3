"""Cohen's kappa and Krippendorff's alpha against statsmodels' and published values, and who may decide a gate."""

import math

import numpy as np
import pytest

from sluice.core.intervals import Interval
from sluice.model.evaluation.judging.agreement import cohens_kappa, deciding, krippendorffs_alpha

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): 4 raters, 12 units; the last has one value only.
PUBLISHED = [
    [1, 1, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [5, 5, 5],
    [1, 1],
    [3],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_has_the_published_value(level, alpha):
    found = krippendorffs_alpha(PUBLISHED, level)
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.n == found.clusters == 11 and found.interval.low < found.value < found.interval.high


def test_alpha_of_equal_ratings_is_undefined_and_of_strings_nominal():
    assert math.isnan(krippendorffs_alpha([["a", "a"], ["a", "a"]]).value)
    assert krippendorffs_alpha([["a", "a"], ["b", "b"], ["a", "a"]]).value == 1
    assert math.isnan(krippendorffs_alpha([["a"], []]).value) and krippendorffs_alpha([]).n == 0


def test_items_of_one_cluster_widen_both_intervals():
    generator = np.random.default_rng(0)
    people = [str(int(x)) for x in generator.random(40) < 0.5]
    judged = [label if generator.random() < 0.8 else "1" for label in people]
    prompts = [f"p{number % 40}" for number in range(400)]
    units = [list(pair) for pair in zip(judged, people, strict=True)]
    for alone, copied, clustered in (
        [
            cohens_kappa(judged, people),
            cohens_kappa(judged * 10, people * 10),
            cohens_kappa(judged * 10, people * 10, prompts),
        ],
        [
            krippendorffs_alpha(units),
            krippendorffs_alpha(units * 10),
            krippendorffs_alpha(units * 10, clusters=prompts),
        ],
    ):
        assert (clustered.clusters, clustered.n) == (40, 400)
        widths = [found.interval.high - found.interval.low for found in (alone, copied, clustered)]
        assert widths[1] < 0.5 * widths[0] and widths[2] == pytest.approx(widths[0], rel=0.15)


def test_kappa_is_that_of_statsmodels_and_its_variance_without_pseudo_labels(monkeypatch):
    monkeypatch.setattr("sluice.model.evaluation.judging.agreement._PSEUDO_LABELS", 0.0)
    table = [[44, 5, 1], [7, 20, 3], [9, 5, 6]]  # statsmodels 0.15: kappa 0.49152542, standard error 0.07212746
    cells = [(a, b) for a in range(3) for b in range(3) for _ in range(table[a][b])]
    found = cohens_kappa([str(a) for a, _ in cells], [str(b) for _, b in cells])
    assert found.value == pytest.approx(0.49152542)
    error = (found.interval.high - found.value) / 1.98421695  # t with 99 degrees of freedom
    assert error * math.sqrt(99 / 100) == pytest.approx(0.07212746)


def test_a_judge_that_always_passes_decides_nothing():
    people = ["pass"] * 180 + ["fail"] * 20
    kappa = cohens_kappa(["pass"] * 200, people)
    assert kappa.value == 0 and not deciding(kappa.interval)
    assert not deciding(cohens_kappa(["pass"] * 200, ["pass"] * 200).interval)
    assert not deciding(cohens_kappa([], []).interval)


def test_a_judge_decides_only_where_enough_people_agree():
    people = ["pass", "fail"] * 5
    assert not deciding(cohens_kappa(people, people).interval)
    assert cohens_kappa(people, people).interval.high == 1
    assert deciding(cohens_kappa(people * 5, people * 5).interval)
    assert not deciding(cohens_kappa(people * 5, people * 5, ["one"] * 50).interval)


def test_a_judge_that_fails_to_judge_disagrees():
    people = ["pass", "fail"] * 50
    judged = ["error" if number % 3 == 0 else label for number, label in enumerate(people)]
    assert cohens_kappa(judged, people).value < 0.6


@pytest.mark.parametrize("low", [math.nan, -1.0, 0.03, 0.599999])
def test_a_lower_end_below_the_bound_or_none_does_not_decide(low):
    assert not deciding(Interval(low, 1.0))
    assert deciding(Interval(0.6, 0.7))


@pytest.mark.parametrize("positive", [0.5, 0.1])
def test_a_judge_at_the_bound_decides_rarely(positive):
    generator = np.random.default_rng(3)
    decided = 0
    for _ in range(400):
        people = generator.random(100) < positive
        judged = np.where(generator.random(100) < 0.6, people, generator.random(100) < positive)  # kappa 0.6
        decided += deciding(cohens_kappa(judged.astype(str), people.astype(str)).interval)
    assert decided <= 0.05 * 400


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="2 labels of the judge, but 1"):
        cohens_kappa(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="1 clusters for 2 items"):
        cohens_kappa(["a", "b"], ["a", "b"], ["x"])
