"""The commands of `sluice data` on a handful of documents, with what they print."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data.texts import sample
from benchmarks.report import ROOT
from sluice.data.refining.tables import read_decisions

_SAMPLE_BYTES = 300_000
_WIDTH = 118
_LINES = 32
_PROGRESS = re.compile(r"^data {4,}.*\n", re.MULTILINE)


def transcript(texts: Sequence[str], folder: Path) -> str:
    """A console session in `folder`: build, why, refilter, diff, card."""
    source = folder / "texts"
    source.mkdir()
    chosen = sample([text for text in texts if 2_000 < len(text) < 20_000], _SAMPLE_BYTES)
    halved = chosen[0].split("\n\n")
    # A copy without its second paragraph, and a page that says who to ask.
    planted = ["\n\n".join([halved[0], *halved[2:]]), f"{chosen[1]}\nQuestions go to jane.roe@example.org.\n"]
    for number, text in enumerate([*chosen, *planted]):
        (source / f"{number:03d}.md").write_text(text, encoding="utf-8")
    built = _shown("data build --source texts --out clean", folder)
    rows = read_decisions(folder / "clean")
    dropped = min((row for row in rows if row["rule"] == "near_duplicate"), key=lambda row: str(row["id"]))
    commands = (
        f"data why {dropped['id']} --in clean",
        "data build --source texts --out strict refine.min_words=300 --json",
        "data diff clean strict",
        "data refilter --in clean min_words=300",
        "data card clean",
    )
    return "\n\n".join([built, *(_shown(command, folder) for command in commands)])


def _shown(command: str, folder: Path) -> str:
    """The command and its output, long lines folded. RuntimeError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(_WIDTH), "NO_COLOR": "1"}
    program = [sys.executable, "-m", "sluice.pipelines.cli", *shlex.split(command)]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"sluice {command} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    printed = _PROGRESS.sub("", done.stdout.replace(f"{folder}/", ""))
    if "--json" in command:
        printed = json.dumps(json.loads(printed), ensure_ascii=False)
    lines = [
        line[start : start + _WIDTH] for line in printed.splitlines() for start in range(0, len(line) or 1, _WIDTH)
    ]
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], ".."]
    return "\n".join([f"$ sluice {command}", *lines])
