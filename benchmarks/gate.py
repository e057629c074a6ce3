"""How often the gate promotes, holds and rejects candidates whose true difference from the champion is known.

    python -m benchmarks.gate --documents 81 --items 300 --icc 0.1 --bits-difference 0.02 --bits-sd 0.05 \
        --accuracy-difference 0 --draws 2000 --seed 1 --json
    python -m benchmarks.gate --table [--draws 2000]

The first simulates one shape, calls the real `decide` on every draw and prints the shares of its outcomes. The second
simulates the shapes of docs/evaluation.md and writes its tables.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.markers import markdown
from benchmarks.report import print_or_write
from benchmarks.simulated_evaluations import NOISE, Shape, simulate
from sluice.core.intervals import paired_score_limit
from sluice.model.evaluation.gate import decide
from sluice.model.evaluation.policy import Policy, load_policy

POLICY = Path(__file__).parents[1] / "conf" / "gate" / "default.yaml"
OUTCOMES = ("promote", "hold", "reject")
DONE = {"promote": "promoted", "reject": "rejected"}
ICCS = (0.0, 0.1, 0.3)
MARGIN = 0.02
DISCORDANT = "questions that one of two equal models answers rightly; a difference comes on top"
TRUTHS = (
    ("bits +0.02, the margin", Shape(bits_difference=MARGIN), "promote", "at most 5 %"),
    ("accuracy -0.10, the margin", Shape(accuracy_difference=-0.1), "promote", "at most 5 %"),
    ("accuracy -0.10, 20 % discordant", Shape(accuracy_difference=-0.1, discordant=0.2), "promote", "at most 5 %"),
    ("no difference", Shape(), "promote", "at least 80 % for an ICC up to 0.1"),
    ("no difference", Shape(), "reject", "at most 5 %"),
    ("no difference, 20 % discordant", Shape(discordant=0.2), "promote", ""),
    ("no difference, 0.1 bits between documents", Shape(bits_sd=0.1), "promote", ""),
    ("bits -0.02 (better)", Shape(bits_difference=-0.02), "promote", ""),
    ("bits +0.05", Shape(bits_difference=0.05), "reject", ""),
    ("accuracy -0.25", Shape(accuracy_difference=-0.25), "reject", ""),
    ("first version, equal to the n-gram model", Shape(is_first=True), "promote", "at most 5 %"),
    ("first version, 0.02 bits better", Shape(is_first=True, bits_difference=-0.02), "promote", ""),
)
"""Title, shape, the outcome whose share is shown, and what is meant; by ICC where something is meant."""
DOCUMENTS = (20, 40, 81, 200)
SHAPES = {
    "normal": "normal",
    "student": "Student's t, 4 degrees",
    "gains": "skewed gains (exponential)",
    "exponential": "skewed losses (exponential)",
    "lognormal": "heavily skewed losses (lognormal)",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add, default = parser.add_argument, Shape()
    add("--documents", type=int, default=default.documents, metavar="N")
    add("--items", type=int, default=default.items, metavar="N", help="multiple-choice questions")
    add("--icc", type=float, default=default.icc, help="correlation of two questions of one document")
    add("--bits-difference", type=float, default=0.0, metavar="BITS", help="candidate less champion")
    add("--bits-sd", type=float, default=default.bits_sd, metavar="BITS", help="of the difference between documents")
    add("--accuracy-difference", type=float, default=0.0, metavar="SHARE", help="candidate less champion")
    add("--accuracy", type=float, default=default.accuracy, metavar="SHARE", help="the champion's")
    add("--discordant", type=float, default=default.discordant, metavar="SHARE", help=DISCORDANT)
    add("--noise", choices=sorted(NOISE), default=default.noise, help="shape of the differences in bits")
    add("--first", action="store_true", help="no champion: the difference in bits is from the n-gram model")
    add("--policy", type=Path, default=POLICY, metavar="FILE")
    add("--draws", type=int, default=2000)
    add("--seed", type=int, default=1)
    add("--json", action="store_true", help="print JSON")
    add("--table", action="store_true", help="simulate many shapes and write the tables of docs/evaluation.md")
    given = parser.parse_args(arguments)
    if given.table:
        print_or_write("evaluation.md", tables(given.draws, given.seed), is_check=False)
        return
    try:
        shape = Shape(
            given.documents,
            given.items,
            given.icc,
            given.bits_difference,
            given.bits_sd,
            given.accuracy_difference,
            given.accuracy,
            given.discordant,
            given.noise,
            given.first,
        )
        shares = outcomes(shape, load_policy(given.policy), draws=given.draws, seed=given.seed)
    except ValueError as error:
        parser.error(str(error))
    text = "  ".join(f"{name} {share:.1%}" for name, share in shares.items())
    print(json.dumps(shares) if given.json else text)


def outcomes(shape: Shape, policy: Policy, *, draws: int, seed: int) -> dict[str, float]:
    """Share of each outcome of the gate among simulated candidates."""
    if draws < 1:
        raise ValueError(f"draws={draws}: must be at least 1")
    counts: Counter[str] = Counter(decide(*pair, policy).outcome for pair in simulate(shape, draws, seed))
    return {name: counts[name] / draws for name in OUTCOMES}


def tables(draws: int, seed: int) -> dict[str, str]:
    """All tables of the gate in docs/evaluation.md."""
    policy = load_policy(POLICY)
    small = {name: each.model_copy(update={"min_clusters": 2}) for name, each in policy.metrics.items()}
    any_size = policy.model_copy(update={"metrics": small})
    by_icc = {
        title: [replace(shape, icc=icc) for icc in (ICCS if meant else ICCS[1:2])] for title, shape, _, meant in TRUTHS
    }
    by_size = {noise: [Shape(documents=n, bits_difference=MARGIN, noise=noise) for n in DOCUMENTS] for noise in SHAPES}
    jobs = {(shape, True) for row in by_icc.values() for shape in row}
    jobs |= {(shape, False) for row in by_size.values() for shape in row}
    with ProcessPoolExecutor() as pool:
        running = {
            job: pool.submit(outcomes, job[0], policy if job[1] else any_size, draws=draws, seed=seed) for job in jobs
        }
        found = {job: each.result() for job, each in running.items()}

    def shares(row: list[Shape], outcome: str, *, as_shipped: bool = True) -> list[str]:
        return [f"{100 * found[shape, as_shipped][outcome]:.1f} %" for shape in row]

    truth = [
        (
            title,
            DONE[outcome],
            meant,
            *(shares(by_icc[title], outcome) if meant else ["", *shares(by_icc[title], outcome), ""]),
        )
        for title, _, outcome, meant in TRUTHS
    ]
    sizes = [(title, *shares(by_size[noise], "promote", as_shipped=False)) for noise, title in SHAPES.items()]
    iccs = " | ".join(f">ICC {icc:g}" for icc in ICCS)
    documents = " | ".join(f">{n} documents" for n in DOCUMENTS)
    return {
        "gate-outcomes": markdown(f"true difference from the champion | share of {draws:,} | meant | {iccs}", truth),
        "gate-shapes": markdown(f"differences between documents | {documents}", sizes),
        "gate-power": markdown(
            "discordant items | >this gate, alpha 5 % | >this gate, alpha 2.5 % | >unpaired z test",
            _comparators(draws, seed),
        ),
        "gate-policy": markdown(
            "metric | >floor | >margin | >budget | tail | >least clusters | also", _defaults(policy)
        ),
    }


def _comparators(draws: int, seed: int) -> list[tuple[str, ...]]:
    """Power to pass a margin of 5 points where both models are equal, and for lm-eval to see 5 points, at n = 500.

    Its z test takes the two accuracies, 0.70 and 0.75 here, as independent samples, two-sided at 5 %.
    """
    generator, n, margin, rows = np.random.default_rng(seed), 500, 0.05, []
    for discordant in (0.1, 0.2):
        ours, theirs, _ = generator.multinomial(n, [discordant / 2, discordant / 2, 1 - discordant], draws).T
        powers = []
        for alpha in (0.05, 0.025):
            z = float(stats.t.isf(alpha, n - 1))
            limits = [paired_score_limit(b, c, n, -z) for b, c in zip(ours.tolist(), theirs.tolist(), strict=True)]
            powers.append(np.mean(np.array(limits) > -margin))
        better = np.mean((ours - theirs) / n + margin > 1.96 * math.sqrt((0.7 * 0.3 + 0.75 * 0.25) / n))
        rows.append((f"{discordant:.0%}", *(f"{power:.2f}" for power in (*powers, better))))
    return rows


def _defaults(policy: Policy) -> list[tuple[str, ...]]:
    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:g}"

    return [
        (
            name,
            f"{'<' if each.direction == 'lower' else '>'} {shown(each.floor)}",
            shown(each.margin),
            shown(each.budget),
            f"< {each.tail.share:.0%} of documents worse by {each.tail.beyond:g}" if each.tail else "",
            str(each.min_clusters) if each.kind != "golden" else "complete set",
            "beats the n-gram model"
            if each.beat_reference
            else ""
            if each.max_lost is None
            else f"{each.max_lost} lost",
        )
        for name, each in policy.metrics.items()
    ]


if __name__ == "__main__":
    main()
