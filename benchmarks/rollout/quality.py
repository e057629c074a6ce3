"""Simulate how soon a rollout's quality signals find changed answers, by the real decision function.

python -m benchmarks.rollout.quality [--rollouts 2000] [--seed 1] [--write]

`--write` writes the tables of docs/release.md.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.report import markdown, replace_tables
from sluice.serving.canary import RolloutState, decide
from sluice.serving.config import RolloutConfig
from sluice.serving.evidence import Evidence, Pairs, Quality

PAGE = Path(__file__).parents[2] / "docs" / "release.md"
KEPT, PAIRS = 128, 300
"""Parity answers that the gate keeps; replayed prompts after which an undecided simulation ends."""
GOOD = Evidence(Pairs(neither=150), Pairs(neither=140, champion=7), Pairs(neither=140, champion=7))
"""Enough for every other signal to let advance."""


class Ending(NamedTuple):
    """The first decision other than to wait."""

    action: str
    n: int
    """Probes, or replayed prompts, until then."""


def parity(changed: float, generator: np.random.Generator) -> Ending:
    """Return the end of one rollout in which a share of the greedy answers is `changed`."""
    different = np.cumsum(generator.random(KEPT) < changed)
    return _end(lambda n: Quality(parity_different=int(different[n - 1]), parity_compared=n, parity_kept=KEPT), KEPT)


def known_answers(challenger: float, champion: float, generator: np.random.Generator) -> Ending:
    """Return the end of one rollout whose versions answer 64 items wrong at these rates, independently."""
    items = 64
    wrong, wrong_before = (generator.random(items) < rate for rate in (challenger, champion))
    kinds = np.stack([~wrong & ~wrong_before, wrong & ~wrong_before, ~wrong & wrong_before, wrong & wrong_before])
    totals = np.cumsum(kinds, axis=1)
    return _end(lambda n: Quality(known=Pairs(*map(int, totals[:, n - 1])), known_items=items), items)


def text(challenger: float, champion: float, generator: np.random.Generator) -> Ending:
    """Return the end of one rollout whose answers show a text difference at these rates, independently."""
    shown, shown_before = (generator.random(PAIRS) < rate for rate in (challenger, champion))
    kinds = np.stack([~shown & ~shown_before, shown & ~shown_before, ~shown & shown_before, shown & shown_before])
    totals = np.cumsum(kinds, axis=1)
    # The other signals are kept from letting advance, so that every pair is looked at.
    waiting = replace(GOOD, first_token=Pairs())
    return _end(lambda n: Quality(text={"longer": Pairs(*map(int, totals[:, n - 1]))}), PAIRS, waiting)


def _end(quality: Callable[[int], Quality], most: int, others: Evidence = GOOD) -> Ending:
    config, state = RolloutConfig.model_validate({}), RolloutState()
    for n in range(1, most + 1):
        decision = decide(state, replace(others, quality=quality(n)), config)
        if decision.action != "wait":
            return Ending(decision.action, n)
        state = decision.state
    return Ending("wait", most)


def simulate(one: Callable[[np.random.Generator], Ending], rollouts: int, seed: int) -> list[Ending]:
    """Return the ends of simulated rollouts, each with its own generator."""
    return [one(np.random.default_rng([seed, number])) for number in range(rollouts)]


def told(endings: list[Ending]) -> str:
    """Return the shares of the ends in percent, with the median number of observations in brackets."""
    words = {"abort": "dropped", "pause": "held", "advance": "let through", "wait": "open"}
    parts = []
    for action, word in words.items():
        counts = [end.n for end in endings if end.action == action]
        if counts:
            parts.append(f"{word} {100 * len(counts) / len(endings):.3g} ({median(counts):.0f})")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the tables of docs/release.md")
    arguments = parser.parse_args()

    percent = "{:.0%}".format
    cases: list[tuple[str, Callable[[np.random.Generator], Ending]]] = [
        (f"parity: {share:.1%} of the greedy answers changed", partial(parity, share))
        for share in (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5)
    ]
    cases += [
        (f"known answers: {percent(rate)} wrong, champion {percent(before)}", partial(known_answers, rate, before))
        for rate, before in ((0.2, 0.2), (0.3, 0.2), (0.5, 0.2), (0.9, 0.2))
    ]
    cases += [
        (f"text difference: {percent(rate)} of the answers, champion {percent(before)}", partial(text, rate, before))
        for rate, before in ((0.05, 0.05), (0.3, 0.3), (0.1, 0.05), (0.3, 0.05), (0.9, 0.05))
    ]
    rows = [[name, told(simulate(one, arguments.rollouts, arguments.seed))] for name, one in cases]
    table = markdown("true rates | > end in percent (median probes or prompts)", rows)
    note = f"{arguments.rollouts} rollouts a row, seed {arguments.seed}."
    print(f"{table}\n\n{note}")
    if arguments.write:
        replace_tables(PAGE, {"rollout-quality": f"{table}\n\n{note}"})


if __name__ == "__main__":
    main()
