"""The tables of docs/release.md: every decision rule under the same true rates."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.markers import markdown, replace_tables
from benchmarks.rollout.rules import RULES, Ending
from benchmarks.rollout.simulate import simulate, summary
from benchmarks.rollout.traffic import Scenario

PAGE = Path(__file__).resolve().parents[2] / "docs" / "release.md"
RATES = (0.7, 2.5, 10.0)
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


def write_tables(rollouts: int, seed: int) -> None:
    """Simulate every cell, and write the table in docs/release.md after each, so that a stopped run keeps its rows."""
    rows: list[list[str]] = []
    for cell in CELLS:
        rows += _rows(cell, max(1, rollouts // LONG) if cell.is_long else rollouts, seed)
        for row in rows[-len(RULES) :]:
            print(" | ".join(row), flush=True)
        head = "true rates | wanted | rule | > rollouts | > 0.7 a second | > 2.5 a second | > 10 a second"
        machine = f"{os.cpu_count()} cores, {platform.python_implementation()} {platform.python_version()}"
        note = f"Seed {seed}; {machine}, NumPy {np.__version__}."
        replace_tables(PAGE, {"rollout-errors": f"{markdown(head, rows)}\n\n{note}"})


def _rows(cell: Cell, rollouts: int, seed: int) -> Iterator[list[str]]:
    for index, rule in enumerate(RULES):
        told: list[str] = []
        for rate in RATES:
            if told and rule == "mann-whitney" and not cell.scenario.bursts:
                told.append(told[0])  # it looks by counts, whatever the rate
                continue
            scenario = replace(cell.scenario, replays_per_second=rate)
            told.append(_told(simulate(scenario, rollouts, seed, rule, cell.max_error_increase)))
        title, goal = ("", "") if index else (cell.title, cell.goal)
        yield [title, goal, rule, str(rollouts), *told]


def _told(endings: list[Ending]) -> str:
    """Shares in percent with the median requests in brackets, such as `up 97.5 (118), down 2.5 (60)`."""
    found, words = summary(endings), {"promoted": "up", "dropped": "down"}
    parts = [
        f"{word} {100 * found[outcome]:.3g} ({found[f'median_requests_{outcome}']:.0f})"  # type: ignore[operator]
        for outcome, word in words.items()
        if found[outcome]
    ]
    return ", ".join([*parts, *([f"open {100 * found['open']:.3g}"] if found["open"] else [])])
