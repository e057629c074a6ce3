"""How often the intervals of judged rates contain the true rate, and how often which judge may decide a gate.

    python -m benchmarks.judging [--draws 2000] [--seed 1] [--json]

Calls the functions of sluice.model.evaluation.judging on simulated labels. Without --json it writes the tables of
docs/evaluation.md.
"""

import argparse
import json
from typing import Any

import numpy as np

from benchmarks.markers import markdown
from benchmarks.report import down, print_or_write
from sluice.core.intervals import wilson_interval
from sluice.model.evaluation.judging.agreement import cohens_kappa, deciding
from sluice.model.evaluation.judging.correction import Calibration, Counts, corrected_rate

SHAPES = (
    (0.5, 0.9, 0.9, 1000, 100),
    (0.9, 0.9, 0.7, 500, 50),
    (0.98, 0.99, 0.95, 1000, 100),
    (0.02, 0.9, 0.9, 200, 200),
    (0.3, 0.7, 0.9, 2000, 30),
    (0.7, 0.6, 0.6, 500, 50),
    (1.0, 0.6, 0.6, 2000, 30),
)
"""True rate, sensitivity, specificity, judged answers, answers that people label (half of each kind)."""
AGREEMENTS = ((0.5, 100), (0.1, 169), (0.5, 400))
"""Share of answers that people pass, and labelled answers."""
KAPPAS = (0.0, 0.45, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate judges and count what their statistics get right.")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON and write nothing")
    arguments = parser.parse_args()
    coverage = [measure_coverage(*shape, draws=arguments.draws, seed=arguments.seed) for shape in SHAPES]
    decided = [
        measure_deciding(kappa, share, n, draws=arguments.draws, seed=arguments.seed)
        for share, n in AGREEMENTS
        for kappa in KAPPAS
    ]
    if arguments.json:
        print(json.dumps({"correction": coverage, "deciding": decided}, indent=1))
    else:
        print_or_write("evaluation.md", tables(coverage, decided), is_check=False)


def measure_coverage(
    rate: float, sensitivity: float, specificity: float, answers: int, labelled: int, *, draws: int, seed: int
) -> dict[str, Any]:
    """Share of simulated evaluations whose 95 % interval contains the true rate, corrected and as judged."""
    generator = np.random.default_rng(seed)
    positives, negatives = labelled // 2, labelled - labelled // 2
    passed = generator.binomial(answers, rate * sensitivity + (1 - rate) * (1 - specificity), draws)
    right = generator.binomial((positives, negatives), (sensitivity, specificity), (draws, 2))
    covered, uncorrected, width = 0, 0, 0.0
    for count, (positive, negative) in zip(passed.tolist(), right.tolist(), strict=True):
        judge = Calibration(Counts(positive, positives), Counts(negative, negatives))
        low, high = corrected_rate(Counts(count, answers), judge).interval
        covered += low <= rate <= high
        width += high - low
        low, high = wilson_interval(count, answers, 0.95)
        uncorrected += low <= rate <= high
    shape = {"rate": rate, "sensitivity": sensitivity, "specificity": specificity, "answers": answers}
    shares = {"covered": covered / draws, "covered_uncorrected": uncorrected / draws, "width": width / draws}
    return {**shape, "labelled": labelled, **shares}


def measure_deciding(kappa: float, share: float, n: int, *, draws: int, seed: int) -> dict[str, Any]:
    """Share of simulated judges of a true kappa that may decide a gate. They copy people's label or draw one."""
    generator = np.random.default_rng(seed)
    people = generator.random((draws, n)) < share
    drawn = generator.random((draws, n)) < share
    judged = np.where(generator.random((draws, n)) < kappa, people, drawn)
    found = sum(
        deciding(cohens_kappa(a, b).interval)
        for a, b in zip(judged.astype(str).tolist(), people.astype(str).tolist(), strict=True)
    )
    return {"kappa": kappa, "passed_by_people": share, "n": n, "decides": found / draws}


def tables(coverage: list[dict[str, Any]], decided: list[dict[str, Any]]) -> dict[str, str]:
    rows = [
        (
            f"{each['rate']:g}",
            f"{each['sensitivity']:g}, {each['specificity']:g}",
            f"{each['answers']:,}",
            str(each["labelled"]),
            f"{down(100 * each['covered'], 1):.1f} %",
            f"{100 * each['covered_uncorrected']:.1f} %",
            f"{each['width']:.3f}",
        )
        for each in coverage
    ]
    head = "true rate | sensitivity, specificity |>answers |>labelled by people |>covered |>uncorrected |>mean width"
    by_kappa = [
        (
            f"{100 * share:g} % of {n}",
            *(
                f"{100 * each['decides']:.1f} %"
                for each in decided
                if (each["passed_by_people"], each["n"]) == (share, n)
            ),
        )
        for share, n in AGREEMENTS
    ]
    titles = " | ".join(["people pass", *(f">true kappa {kappa:g}" for kappa in KAPPAS)])
    return {"judging-correction": markdown(head, rows), "judging-deciding": markdown(titles, by_kappa)}


if __name__ == "__main__":
    main()
