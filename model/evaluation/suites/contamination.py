"""Mark the items of a suite that stand in the training text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sluice.data.decontamination.contaminated import contaminated_items
from sluice.model.evaluation.suites.suite_run import SuiteRun
from sluice.model.evaluation.suites.summary import CONTAMINATED


def add_contamination(run: SuiteRun, training_texts: Sequence[str]) -> None:
    """Mark each item by its metadata `contaminated`: yes, no, or too short to be searched for.

    An item is what is asked and what is right, with the choices; it is found by the n-grams that refining
    decontaminates by.
    """
    strings = {answer["item"]: _strings(answer) for answer in run.answers}
    found, short = contaminated_items(strings, training_texts)
    marks = {name: "yes" if name in found else "too short" if name in short else "no" for name in strings}
    run.items = [
        replace(item, metadata={**item.metadata, CONTAMINATED: marks[item.item]}) if item.item in marks else item
        for item in run.items
    ]
    run.entry["contamination"] = {"found": len(found), "too_short": len(short), "items": len(strings)}


def _strings(answer: dict[str, Any]) -> list[str]:
    """Return what is asked without the examples before it, what is right, and the choices."""
    prompt = answer.get("question", answer["prompt"])
    asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return [asked, *answer.get("targets", []), *(choice["text"] for choice in answer.get("choices", []))]
