"""Documents that no filter drops, and `sluice data ..` called in this process."""

import json
import random
import re
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from sluice.pipelines.cli import main

WORDS = sorted(set(re.findall(r"[a-z]{3,9}", " ".join(topics.values()))))


def article(topic: str, number: int) -> str:
    """Seventy words that no other topic and number have in this order."""
    words = " ".join(random.Random(f"{topic}{number}").sample(WORDS, 60))
    return f"Part {number} of the text that we have on {topic} is {words}."


ONE = ["refine.workers=1", "refine.min_substring_words=null"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["data", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["data", *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "Traceback" not in error
    return error


def documents(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
