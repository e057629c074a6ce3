"""The simulations of judges: intervals cover, and judges at the bound rarely decide."""

import pytest

from benchmarks.judging import AGREEMENTS, KAPPAS, SHAPES, measure_coverage, measure_deciding, tables
from benchmarks.markers import read_table
from benchmarks.report import DOCS


@pytest.mark.parametrize("shape", [*SHAPES, (0.6, 0.8, 0.75, 300, 60)])
@pytest.mark.parametrize("seed", [1, 2])
def test_corrected_intervals_cover_the_true_rate(shape, seed):
    assert measure_coverage(*shape, draws=2000, seed=seed)["covered"] >= 0.94


def test_judges_at_the_bound_rarely_decide():
    for share, n in AGREEMENTS:
        assert measure_deciding(0.6, share, n, draws=1000, seed=5)["decides"] <= 0.05


def test_the_page_has_the_tables():
    coverage = [measure_coverage(*shape, draws=2, seed=1) for shape in SHAPES]
    decided = [measure_deciding(kappa, share, n, draws=2, seed=1) for share, n in AGREEMENTS for kappa in KAPPAS]
    written = tables(coverage, decided)
    heads = {name: table.splitlines()[0] for name, table in written.items()}
    assert {name: read_table(DOCS / "evaluation.md", name).splitlines()[0] for name in written} == heads
