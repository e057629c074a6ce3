"""The tables of docs/release.md: our decision rule, and others, under the same true rates."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.markers import markdown, replace_tables
from benchmarks.rollout.rules import Ending
from benchmarks.rollout.simulate import simulate_speeds, summary
from benchmarks.rollout.traffic import Scenario
from sluice.serving.config import RolloutConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "release.md"
SPEEDS = (0.7, 2.5, 10.0)
PEERS_SHOWN = ("estimates", "argo", "mann-whitney")
LONG = 3
"""Cells that mostly end by the steps' longest times get this part of the rollouts."""


@dataclass(frozen=True)
class Cell:
    """One set of true rates, and what is wanted of it."""

    title: str
    goal: str
    scenario: Scenario
    max_error_increase: float | None = None
    is_long: bool = False


def _equal(errors: float) -> Scenario:
    return Scenario(true_errors=errors, champion_errors=errors)


def _slow(ratio: float, spread: float) -> Scenario:
    return Scenario(latency_ratio=ratio, latency_spread=spread)


CELLS = (
    Cell("identical, no errors", "dropped at most 2 %", _equal(0.0)),
    Cell("identical, 0.5 %", "dropped at most 2 %; 150 requests", _equal(0.005)),
    Cell("identical, 1 %", "dropped at most 2 %; 400 requests", _equal(0.01)),
    Cell("identical, 0.5 %, shared bursts", "dropped at most 5 %", replace(_equal(0.005), bursts=True)),
    Cell("3 % errors, champion 0.5 %", "promoted at most 6 %", Scenario(true_errors=0.03), is_long=True),
    Cell("5 % errors", "promoted at most 1 %; dropped in 220", Scenario(true_errors=0.05)),
    Cell("10 % errors", "promoted at most 0.1 %; dropped in 50", Scenario(true_errors=0.10)),
    Cell(
        "1.5 % errors, champion 0.05 %, `max_error_increase` 1 point",
        "promoted at most 5 %",
        Scenario(true_errors=0.015, champion_errors=0.0005),
        0.01,
        is_long=True,
    ),
    Cell("0.05 % errors both, `max_error_increase` 1 point", "350 requests", _equal(0.0005), 0.01),
    Cell("1.4 times as slow, spread 0.3", "promoted at least 85 %", _slow(1.4, 0.3)),
    Cell("1.4 times as slow, spread 0.5", "promoted at least 85 %", _slow(1.4, 0.5)),
    Cell("1.6 times as slow, spread 0.5", "told", _slow(1.6, 0.5), is_long=True),
    Cell("2 times as slow, spread 0.3", "promoted at most 5 %", _slow(2.0, 0.3)),
    Cell("2 times as slow, spread 0.5", "promoted at most 5 %", _slow(2.0, 0.5)),
    Cell("first token 2 times as slow, spread 0.5", "told", replace(_slow(2.0, 0.5), slow_signal="first_token")),
    Cell("3 times as slow, spread 0.5", "promoted at most 0.5 %", _slow(3.0, 0.5)),
    Cell(
        "both fail on 10 % of the prompts",
        "paused; dropped at most 2 %",
        Scenario(shared_errors=0.1),
        is_long=True,
    ),
)


def write_tables(rollouts: int, seed: int, rules: Sequence[str]) -> None:
    """Simulate every cell, and write the table in docs/release.md after each, so that a stopped run keeps its rows.

    Our rule has a table of its own; the others share one.
    """
    machine = f"{os.cpu_count()} cores, {platform.python_implementation()} {platform.python_version()}"
    note = f"Seed {seed}; {machine}, NumPy {np.__version__}."
    speeds = " | ".join(f"> {speed:g} a second" for speed in SPEEDS)
    for name, own, head in (
        ("rollout-errors", [rule for rule in rules if rule == "ours"], "true rates | wanted | > rollouts"),
        ("rollout-peers", [rule for rule in rules if rule in PEERS_SHOWN], "true rates | rule | > rollouts"),
    ):
        rows: list[list[str]] = []
        for cell in CELLS if own else ():
            for rule in own:
                label = cell.goal if rule == "ours" else rule
                shown = max(1, rollouts // LONG) if cell.is_long else rollouts
                rows.append(
                    [cell.title if rule == own[0] else "", label, str(shown), *_by_speed(cell, rule, shown, seed)]
                )
                print(" | ".join(rows[-1]), flush=True)
            replace_tables(PAGE, {name: f"{markdown(f'{head} | {speeds}', rows)}\n\n{note}"})


def _by_speed(cell: Cell, rule: str, rollouts: int, seed: int) -> list[str]:
    config = RolloutConfig.model_validate({"max_error_increase": cell.max_error_increase})
    return [_told(endings) for endings in simulate_speeds(cell.scenario, SPEEDS, rollouts, seed, rule, config=config)]


def _told(endings: list[Ending]) -> str:
    """Shares in percent with the median requests in brackets, such as `up 97.5 (118), down 2.5 (60)`."""
    found, words = summary(endings), {"promoted": "up", "dropped": "down"}
    parts = [
        f"{word} {100 * found[outcome]:.3g} ({found[f'median_requests_{outcome}']:.0f})"  # type: ignore[operator]
        for outcome, word in words.items()
        if found[outcome]
    ]
    return ", ".join([*parts, *([f"open {100 * found['open']:.3g}"] if found["open"] else [])])
