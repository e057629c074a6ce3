"""MMLU's development questions, from the prompts of lm-eval's chain-of-thought tasks (arXiv 2009.03300).

Of 282 questions, 273 have four choices on one line after the question, and an answer that is one of them; the others
are left out.
"""

import re
from collections.abc import Mapping
from datetime import date
from pathlib import PurePosixPath
from typing import Any

import yaml

from sluice.data.sources.archive import Pin
from sluice.model.evaluation.sets.named import NamedSet, Rows

_FOLDER = "lm_eval/tasks/mmlu/flan_cot_fewshot/"
_QUESTION = re.compile(r"(.*)\n\(A\) ([^\n]*) \(B\) ([^\n]*) \(C\) ([^\n]*) \(D\) ([^\n]*)\n?", re.DOTALL)
_ANSWER = re.compile(r"The answer is \(([A-D])\)\.\s*$")
_LETTERS = "ABCD"


class _Tasks(yaml.SafeLoader):
    """Reads a task's YAML without running the functions that it names."""


_Tasks.add_constructor("!function", lambda loader, node: None)


def questions(files: Mapping[str, bytes]) -> list[tuple[str, dict[str, str]]]:
    """Return (subject, question and target) of every question."""
    found = []
    for content in files.values():
        task: dict[str, Any] = yaml.load(content, _Tasks)  # noqa: S506
        samples = task.get("fewshot_config", {}).get("samples", [])
        found += [(task.get("dataset_name", ""), sample) for sample in samples]
    return found


def _read(files: Mapping[str, bytes]) -> Rows:
    rows: Rows = []
    for number, (subject, sample) in enumerate(questions(files)):
        asked, answer = _QUESTION.fullmatch(sample["question"]), _ANSWER.search(sample["target"])
        if asked is None or answer is None:
            continue
        question, *choices = (part.strip() for part in asked.groups())
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=True))
        rows.append(
            {
                "id": f"{subject}-{number}",
                "subject": subject,
                "asked": f"The following is a multiple choice question about {subject.replace('_', ' ')}.\n\n"
                f"{question}\n{options}\nAnswer:",
                "choices": list(_LETTERS),
                "answer": answer[1],
            }
        )
    return rows


SETS = (
    NamedSet(
        "mmlu-dev",
        Pin(
            "lm-eval",
            "0.4.13",
            "5daaa1973bf874005f64f28d3834b875f6886f0d6475878e6a6c821994a5286a",
            "the set mmlu-dev",
            kind="wheel",
        ),
        items=273,
        licence="MIT",
        source="Hendrycks et al., MMLU, development questions",
        created=date(2021, 1, 12),
        refresh_by=date(2027, 12, 31),
        wanted=lambda path: path.startswith(_FOLDER) and PurePosixPath(path).suffix == ".yaml",
        read=_read,
        asks={
            "prompt": "{asked}",
            "chat": False,
            "scorers": ["choice_sum"],
            "choices": "choices",
            "choice_prefix": " ",
            "metadata": ["subject"],
            "task": "knowledge",
            "language": "en",
        },
    ),
)
