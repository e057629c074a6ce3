"""Drift tests keep their level, see planted drift, and do not care about the order of rows."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sluice.monitoring.drift import DriftTest, categorical_drift, correct, embedding_drift, numeric_drift

LABELS = np.array(["stop", "length", "error"])


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
    """statsmodels collects garbage at every correction, 0.1 s each time in a process of this size."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def mmd(reference, current, seed=0, permutations=200, **settings):
    return embedding_drift(
        "embedding", reference, current, permutations=permutations, min_rows=30, seed=seed, **settings
    )


def ks(reference, current, seed=0):
    return numeric_drift("tokens", reference, current, min_rows=30)


def chi2(reference, current, seed=0):
    return categorical_drift("finish_reason", reference, current, permutations=200, min_rows=30, seed=seed)


def draw(test, generator, count, shift=0.0):
    if test is mmd:
        return generator.normal(shift, 1, (count, 8))
    if test is ks:
        return generator.normal(shift, 1, count)
    common = 0.68 - shift / 2
    return generator.choice(LABELS, count, p=[common, 0.99 - common, 0.01]).tolist()


@pytest.mark.parametrize("test", [mmd, ks, chi2])
def test_without_drift_p_values_keep_the_level(test):
    false, runs, level = 0, 300, 0.05
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        false += test(draw(test, generator, 40), draw(test, generator, 60), seed).p_value <= level
    assert false <= stats.binom.ppf(0.999, runs, level)


@pytest.mark.parametrize("test", [mmd, ks, chi2])
def test_planted_drift_is_found(test):
    found = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        found += test(draw(test, generator, 100), draw(test, generator, 100, shift=0.9), seed).p_value <= 0.01
    assert found >= 19


def test_a_change_of_shape_alone_is_seen_in_embeddings():
    generator = np.random.default_rng(0)
    assert mmd(generator.normal(0, 1, (150, 8)), generator.normal(0, 2, (150, 8))).p_value <= 0.01


@pytest.mark.parametrize("test", [mmd, ks, chi2])
def test_the_order_of_rows_does_not_matter(test):
    generator = np.random.default_rng(0)
    reference, current = draw(test, generator, 50), draw(test, generator, 45, shift=0.3)
    mixed = [[side[row] for row in generator.permutation(len(side))] for side in (reference, current)]
    assert test(*mixed) == test(reference, current)


def test_a_draw_of_many_embeddings_does_not_depend_on_their_order():
    generator = np.random.default_rng(0)
    reference, current = generator.normal(size=(300, 4)), generator.normal(0.2, 1, (400, 4))
    drift = mmd(reference, current, max_rows=50)
    assert (drift.n_reference, drift.n_current) == (50, 50)
    assert drift == mmd(reference[::-1], generator.permutation(current), max_rows=50)


def test_identical_rows_are_no_drift_and_have_a_bandwidth():
    same = np.ones((40, 4))
    assert mmd(same, same).p_value == 1.0
    moved = np.r_[np.ones((30, 4)), np.zeros((10, 4))]
    assert mmd(same, moved, permutations=999).p_value <= 0.01


@pytest.mark.parametrize("test", [mmd, ks, chi2])
@pytest.mark.parametrize(("reference", "current"), [(0, 0), (0, 50), (50, 29)])
def test_few_rows_are_inconclusive(test, reference, current):
    generator = np.random.default_rng(0)
    (drift,) = correct([test(draw(test, generator, reference), draw(test, generator, current))], 0.01)
    assert (drift.outcome, drift.value, drift.p_value) == ("inconclusive", None, None)
    assert drift.reason.endswith(f"n={current} against {reference} in the reference, 30 of each are needed")


@pytest.mark.parametrize("test", [mmd, ks])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_fails(test, bad):
    generator = np.random.default_rng(0)
    reference, current = draw(test, generator, 50), draw(test, generator, 50)
    current[7] = bad
    sound = test(draw(test, generator, 50), draw(test, generator, 50))
    drift, beside = correct([test(reference, current), sound], 0.01)
    assert (drift.outcome, drift.value, drift.p_value) == ("fail", None, None)
    assert "1 current and 0 reference rows are NaN or infinite" in drift.reason
    assert beside.value == beside.p_value == sound.p_value, "it is no test among those corrected"


def test_embeddings_of_other_models_are_not_compared():
    with pytest.raises(ValueError, match="reference width 8 != current width 4"):
        mmd(np.zeros((40, 8)), np.zeros((40, 4)))


def with_p(p_value):
    return DriftTest("x", "ks", 50, 50, statistic=0.1, p_value=p_value)


def test_holm_matches_its_definition():
    # Ordered: 0.001 x 4, 0.01 x 3, 0.02 x 2, 0.9 x 1.
    adjusted = [drift.value for drift in correct([with_p(p) for p in (0.01, 0.9, 0.001, 0.02)], 0.05)]
    assert adjusted == pytest.approx([0.03, 0.9, 0.004, 0.04])


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12), st.floats(0.001, 0.2), st.randoms())
@settings(max_examples=60)
def test_holm_is_stricter_than_no_correction_and_blind_to_order(p_values, alpha, random):
    corrected = correct([with_p(p) for p in p_values], alpha)
    for drift in corrected:
        assert drift.value >= drift.p_value
        assert drift.outcome == ("fail" if drift.value <= alpha else "pass")
    order = list(range(len(p_values)))
    random.shuffle(order)
    shuffled = correct([with_p(p_values[index]) for index in order], alpha)
    assert [drift.outcome for drift in shuffled] == [corrected[index].outcome for index in order]


def test_together_the_tests_keep_the_level():
    families, alpha, runs = 0, 0.05, 200
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        drifts = [ks(draw(ks, generator, 50), draw(ks, generator, 50)) for _ in range(6)]
        families += any(drift.outcome == "fail" for drift in correct(drifts, alpha))
    assert families <= stats.binom.ppf(0.999, runs, alpha)


def test_reasons_state_the_comparison():
    generator = np.random.default_rng(0)
    drift = correct([ks(generator.normal(size=60), generator.normal(3, 1, 70))], 0.01)[0]
    assert drift.outcome == "fail"
    assert drift.reason.startswith("tokens: ks 0.")
    assert drift.reason.endswith("<= 0.01, n=70 against 60")
