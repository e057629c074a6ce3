"""Answers that people labelled, as a JSONL file: what a judge is compared with before it decides anything."""

import json
from pathlib import Path
from typing import Any

from sluice.model.evaluation.judging.judge import LabelledAnswer
from sluice.model.evaluation.judging.rubric import JudgedAnswer

_FIELDS = {"prompt": str, "answer": str, "passed": bool}


def read_labelled(path: Path) -> tuple[LabelledAnswer, ...]:
    """Read the file: `prompt`, `answer` and `passed` (true or false) a line, and `targets` where the judge sees them.

    Answers to one prompt are one cluster. ValueError naming file, line and reason.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"labels {path} cannot be read ({type(error).__name__}): correct the path") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
        for name, kind in _FIELDS.items():
            if not isinstance(row, dict) or not isinstance(row.get(name), kind):
                wanted = "true or false" if kind is bool else "text"
                raise ValueError(f"{path}, line {number}: {name} is no {wanted}; a line has {', '.join(_FIELDS)}")
        targets = row.get("targets", [])
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise ValueError(f"{path}, line {number}: targets is no list of texts")
        answer = JudgedAnswer(f"{number}", row["prompt"], row["answer"], tuple(targets), cluster=row["prompt"])
        found.append(LabelledAnswer(answer, row["passed"]))
    if not found:
        raise ValueError(f"{path} has no labelled answers: write one JSON object a line")
    return tuple(found)
