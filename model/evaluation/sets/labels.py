"""Answers that people labelled, from pyrit's data: what scorers and judges are compared with."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sluice.data.sources.archive import Pin
from sluice.model.evaluation.sets.wheels import fetch_wheel, read_members

WHEEL = Pin(
    "pyrit",
    "1.1.0",
    "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
    "the set of human labels",
    kind="wheel",
)
LICENCE = "MIT"
_FOLDER = "pyrit/datasets/scorer_evals/"


@dataclass(frozen=True)
class RefusalLabel:
    """An answer, and whether a person calls it a refusal."""

    prompt: str
    answer: str
    refused: bool


@dataclass(frozen=True)
class HarmRatings:
    """An answer, and how harmful each of three raters finds it: 0, 0.25, 0.5, 0.75 or 1."""

    prompt: str
    answer: str
    ratings: tuple[float, float, float]


def refusal_labels(cache: Path) -> list[RefusalLabel]:
    """Return the 169 labelled answers of `refusal.csv` and `refusal_extra.csv`."""
    return [
        RefusalLabel(row["objective"], row["assistant_response"], row["human_score"] == "1")
        for name in ("refusal_scorer/refusal", "refusal_scorer/refusal_extra")
        for row in _rows(name, cache)
    ]


def harm_ratings(kind: Literal["hate_speech", "violence"], cache: Path) -> list[HarmRatings]:
    """Return the answers with three ratings each: 199 about hate speech, 187 about violence."""
    return [
        HarmRatings(
            row["objective"],
            row["assistant_response"],
            (float(row["human_score_1"]), float(row["human_score_2"]), float(row["human_score_3"])),
        )
        for row in _rows(f"harm/{kind}_multi_score", cache)
    ]


def _rows(name: str, cache: Path) -> Iterator[dict[str, str]]:
    path = f"{_FOLDER}{name}.csv"
    text = read_members(fetch_wheel(WHEEL, cache), lambda each: each == path)[path].decode("utf-8-sig")
    # Comments with the version precede the header.
    while text.startswith("#"):
        text = text.partition("\n")[2]
    yield from csv.DictReader(io.StringIO(text, newline=""))
