"""Prompts of an evaluation to its models and judges, as texts by name, for a registry of prompts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice.model.evaluation.metrics.golden_pass_rate import GOLDEN_FILE
from sluice.model.evaluation.results import RESULTS_FILE


def evaluation_prompts(folder: Path) -> dict[str, str]:
    """Return the golden prompts, each suite's template and the rubrics of its judges."""
    texts = {}
    if (golden := folder / GOLDEN_FILE).is_file():
        asked = [{name: each[name] for name in ("id", "kind", "prompt")} for each in json.loads(golden.read_bytes())]
        texts["golden"] = json.dumps(asked, indent=1, ensure_ascii=False)
    results: Mapping[str, Any] = json.loads((folder / RESULTS_FILE).read_bytes())
    for suite, entry in results.get("suites", {}).items():
        texts[suite] = entry.get("settings", {}).get("prompt", "")
        for name, rubric in entry.get("rubrics", {}).items():
            texts[f"{suite}.rubric.{name}"] = rubric["text"]
    return {name: text for name, text in texts.items() if text}
