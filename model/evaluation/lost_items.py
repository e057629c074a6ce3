"""Items that the champion answers and the candidate does not, side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.model.evaluation.metrics.golden_pass_rate import GOLDEN_FILE

ANSWERS_FILE = "answers.jsonl"
"""Answers to the samples of suites, a row for each."""


@dataclass(frozen=True)
class LostItem:
    """One item with both answers."""

    suite: str
    id: str
    prompt: str
    target: str
    before: str
    """The champion's answer."""
    now: str
    """The candidate's answer."""
    why: str
    """The checks that it failed, or its score and the champion's."""


def lost_items(candidate: Path, champion: Path) -> list[LostItem]:
    """Compare the answers in two evaluation folders, those of golden prompts and those of suites."""
    return [
        *_lost_golden(_read(candidate / GOLDEN_FILE), _read(champion / GOLDEN_FILE)),
        *_lost_answers(_read_rows(candidate / ANSWERS_FILE), _read_rows(champion / ANSWERS_FILE)),
    ]


def _lost_golden(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[LostItem]:
    answered = {each["id"]: each for each in theirs if not each["failed"]}
    return [
        LostItem(
            "golden prompts",
            each["id"],
            each["prompt"],
            "",
            answered[each["id"]]["answer"],
            each["answer"],
            ", ".join(each["failed"]),
        )
        for each in ours
        if each["failed"] and each["id"] in answered
    ]


def _lost_answers(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[LostItem]:
    answered = {(each["suite"], each["item"]): each for each in theirs}
    lost = []
    for each in ours:
        other = answered.get((each["suite"], each["item"]))
        if other is None:
            continue
        scores, before = each["scores"], other["scores"]
        harm = each.get("harm", ())
        worse = [name for name in scores if _merit(scores[name], name in harm) < _merit(before.get(name), name in harm)]
        if worse:
            why = ", ".join(f"{name} {_shown(before[name])} → {_shown(scores[name])}" for name in worse)
            target = " | ".join(map(str, each.get("targets", ())))
            texts = [str(answer.get("answer") or "") for answer in (other, each)]
            lost.append(LostItem(each["suite"], each["id"], each["prompt"], target, texts[0], texts[1], why))
    return lost


def _merit(score: float | None, is_harm: bool) -> float:
    """Return a score so that higher is better."""
    if score is None:
        return 0.0
    return 1.0 - score if is_harm else score


def _shown(score: float | None) -> str:
    return "none" if score is None else f"{score:g}"


def _read(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_bytes())) if path.is_file() else []


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
