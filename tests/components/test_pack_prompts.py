"""The pack step refuses documents that tuning, evaluation or rollout could not use, before anything is trained."""

import json
from pathlib import Path

import pytest

from sluice.components.pack import check_prompts
from sluice.data.config import PackConfig

CONFIG = PackConfig(test_fraction=0.4)


def write(folder: Path, texts: list[str]) -> Path:
    rows = [{"id": f"{number:032x}", "text": text, "metadata": {}} for number, text in enumerate(texts)]
    (folder / "documents-0000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_plain_text_without_headings_is_enough(tmp_path: Path) -> None:
    text = "A paragraph of plain text tells of a river and of a mill. " * 5
    check_prompts(write(tmp_path, [f"{number} {text}" for number in range(40)]), CONFIG)


def test_too_little_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tuning need 1 prompts .* train documents have 0"):
        check_prompts(write(tmp_path, ["too short to have two passages"] * 40), CONFIG)
