"""Power calculations against simulation and known values."""

import numpy as np
import pytest

from sluice.core.clustered import ClusteredMean, ClusteredRateDifference
from sluice.model.evaluation.power import POWER, mean_power, power_table, rate_power


def test_power_of_a_mean_is_that_of_students_test():
    generator, units = np.random.default_rng(0), np.arange(60)
    passed = np.mean(
        [ClusteredMean(generator.normal(0, 0.05, 60), np.ones(60), units).end(0.05, "above") < 0.02 for _ in range(600)]
    )
    assert mean_power(0.02, 60, sd=0.05, alpha=0.05) == pytest.approx(passed, abs=0.04)
    assert mean_power(0.02, 1, sd=0.05, alpha=0.05) == 0 and mean_power(0.02, 60, sd=0, alpha=0.05) == 1


@pytest.mark.parametrize(("discordant", "at_least"), [(0.1, 0.9), (0.2, 0.68)])
def test_500_paired_items_decide_5_points_as_often_as_published(discordant, at_least):
    """Two-sided at 5 %, as the unpaired test is that sees 5 points in 0.34 and 0.40 of cases."""
    found = rate_power(0.05, 500, 500, icc=0, discordant=discordant, alpha=0.025)
    generator, units = np.random.default_rng(1), np.arange(500)
    passed = 0
    for _ in range(300):
        drawn = generator.choice(3, 500, p=[discordant / 2, discordant / 2, 1 - discordant])
        passed += ClusteredRateDifference((drawn == 0) * 1.0, (drawn == 1) * 1.0, units).end(0.025, "below") > -0.05
    assert found >= at_least and found == pytest.approx(passed / 300, abs=0.06)


def test_a_table_has_the_least_number_of_documents_that_is_enough():
    rows = power_table(0.02, scale="mean", documents=81, size_cv=0)
    enough = next(row for row in rows if row.power >= POWER)
    assert enough.documents == 41 and mean_power(0.02, 40, sd=0.05, alpha=0.05) < POWER
    assert [row.power for row in rows] == sorted(row.power for row in rows)
    unequal = power_table(0.02, scale="mean", documents=81)
    assert next(row for row in unequal if row.power >= POWER).documents > 41
    by_icc = [power_table(0.1, scale="rate", documents=73, items_per_document=4, icc=icc)[0].power for icc in (0, 0.3)]
    assert by_icc[0] > by_icc[1]


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"margin": 0.0}, "margin=0 is out of range: give a number above 0"),
        ({"documents": 1}, "documents=1 is out of range: give at least 2"),
        ({"icc": 1.5}, "icc=1.5 is out of range: give a correlation from 0 to 1"),
        ({"sd": float("nan")}, "sd=nan is out of range"),
        ({"alpha": 0.5}, "alpha=0.5 is out of range"),
    ],
)
def test_figures_that_no_data_can_have_are_named(figures, says):
    with pytest.raises(ValueError, match=says):
        power_table(**{"margin": 0.02, "scale": "mean", "documents": 81, **figures})
