"""The gate's error rates by simulation: at its margins it promotes as rarely as alpha says, and equals often."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks.gate import POLICY, main, outcomes
from benchmarks.simulated_evaluations import Shape, simulate
from sluice.model.evaluation.policy import load_policy

DRAWS = 300


def at_most(rate):
    """The most of DRAWS, as a share, that a rate shows but for once in a thousand."""
    return stats.binom.ppf(0.999, DRAWS, rate) / DRAWS


@pytest.mark.parametrize(
    "shape",
    [
        Shape(bits_difference=0.02),
        Shape(accuracy_difference=-0.1, icc=0.0),
        Shape(accuracy_difference=-0.1, icc=0.3),
        Shape(accuracy_difference=-0.1, icc=0.3, items=1000, discordant=0.0),
        Shape(accuracy_difference=-0.1, icc=0.6, documents=200, items=500),
        Shape(bits_difference=0.02, noise="student", documents=150, bits_sd=0.02),
        Shape(is_first=True),
    ],
    ids=lambda shape: f"{shape.bits_difference:g} {shape.accuracy_difference:g} {shape.icc:g} {shape.documents}",
)
def test_at_a_margin_it_promotes_as_rarely_as_alpha_says(shape):
    assert outcomes(shape, load_policy(POLICY), draws=DRAWS, seed=11)["promote"] <= at_most(0.05)


def test_equal_candidates_are_promoted_often_and_rejected_hardly_ever():
    found = outcomes(Shape(), load_policy(POLICY), draws=DRAWS, seed=12)
    assert found["promote"] >= 1 - at_most(0.2) and found["reject"] <= at_most(0.05)


def test_fewer_documents_than_the_policy_asks_for_promote_nothing():
    assert outcomes(Shape(documents=79), load_policy(POLICY), draws=20, seed=1) == {
        "promote": 0,
        "hold": 1,
        "reject": 0,
    }


def test_the_simulation_has_the_correlation_that_it_says():
    values = []
    for candidate, champion in simulate(Shape(documents=100, items=400, icc=0.3), draws=150, seed=2):
        ours, theirs = (each.items["choice_accuracy"] for each in (candidate, champion))
        by_document = {}
        for mine, other in zip(ours, theirs, strict=True):
            by_document.setdefault(mine.cluster, []).append(mine.value - other.value)
        values += [np.array(each) for each in by_document.values() if len(each) > 1]
    products = np.concatenate([np.outer(each, each)[np.triu_indices(len(each), 1)] for each in values])
    assert products.mean() / np.concatenate(values).var() == pytest.approx(0.3, abs=0.05)


def test_the_command_prints_the_shares(capsys):
    main(["--documents", "90", "--draws", "3", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["promote", "hold", "reject"] and sum(found.values()) == pytest.approx(1)
    with pytest.raises(SystemExit):
        main(["--icc", "2"])
    assert "icc between 0 and 1" in capsys.readouterr().err
