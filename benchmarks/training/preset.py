"""The preset `shakespeare-char-cpu` as its command runs it, beside nanoGPT's recipe on the same text."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.training.launcher import run
from benchmarks.training.results import Shakespeare
from sluice.pipelines.train_run import MODEL

TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_PRESET_S = 3600.0
_POINT_STEPS = 50
"""Steps a point of the curve."""


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
