"""Runs that are killed by SIGKILL at a drawn step and go on, beside runs that were not: in the same layout, and in
another.
"""

import json
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.training import launcher
from benchmarks.training.launcher import program, run, run_to_any_end
from benchmarks.training.results import Resumed
from benchmarks.training.watched import mark_of

STEPS, SAVE_EVERY, COMPARED = 160, 10, 50
_FIRST_KILL, _LAST_KILL = 2 * SAVE_EVERY + 1, 75
"""Steps done between which the kill is drawn. Saving goes on beside the steps, but when the second checkpoint begins to
be written the first is whole; and there are `COMPARED` steps to come."""
_RUN_S = 1200.0
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
_MODEL = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "context": 128}
_PRETRAIN = {
    "optimizer": "adamw",
    "steps": STEPS,
    "batch_size": 8,
    "warmup_steps": 10,
    "checkpoint_every": SAVE_EVERY,
    "validate_every": STEPS,
    "validation_batches": 1,
}

Settings = Mapping[str, Any]

LAYOUTS: Mapping[str, Settings] = {
    "one process, plain PyTorch": {"workers": 1, "zero_stage": 0, "micro_batch_size": 8},
    "2 workers, ZeRO 1": {"workers": 2, "zero_stage": 1, "micro_batch_size": 4},
    "2 workers, ZeRO 2, bf16": {"workers": 2, "zero_stage": 2, "micro_batch_size": 4, "dtype": "bf16"},
    "2 workers, ZeRO 3": {"workers": 2, "zero_stage": 3, "micro_batch_size": 4},
    "2 stages, ZeRO 1": {"workers": 2, "zero_stage": 1, "micro_batch_size": 2, "pipeline_stages": 2},
    "2 slices, ZeRO 1": {"workers": 2, "zero_stage": 1, "micro_batch_size": 4, "tensor_parallel": 2},
}
CHANGES: Sequence[tuple[str, str]] = (
    ("2 workers, ZeRO 1", "one process, plain PyTorch"),
    ("one process, plain PyTorch", "2 workers, ZeRO 3"),
    ("2 workers, ZeRO 3", "2 stages, ZeRO 1"),
)


class FinishedRun(NamedTuple):
    """Losses, report and weights of a finished run."""

    losses: dict[int, float]
    report: dict[str, Any]
    weights: Path


def measure_resume(packed: Path, tokenizer: Path, seed: int = 0) -> list[Resumed]:
    """Each layout killed and resumed, then the changes of layout. RuntimeError where a run fails by itself."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        undisturbed = {}
        for layout in LAYOUTS:
            print(f"  {layout}, undisturbed ..", file=sys.stderr, flush=True)
            undisturbed[layout] = _to_the_end(_request(folder / f"{layout} undisturbed", layout, packed, tokenizer))
        pairs = [*((layout, layout) for layout in LAYOUTS), *CHANGES]
        found = []
        for before, after in pairs:
            here, kill = folder / f"{before} to {after}", draw.randint(_FIRST_KILL, _LAST_KILL)
            print(f"  {before}, killed at step {kill}, resumed as {after} ..", file=sys.stderr, flush=True)
            _kill(_request(here, before, packed, tokenizer), kill)
            resumed = _to_the_end(_request(here, after, packed, tokenizer, any_layout=before != after))
            found.append(compare(before, after, kill, undisturbed[before], resumed))
        return found


def compare(before: str, after: str, killed: int, undisturbed: FinishedRun, resumed: FinishedRun) -> Resumed:
    """The steps behind the checkpoint that it went on from, and the last weights.

    RuntimeError for a run that did not go on.
    """
    import torch
    from safetensors.torch import load_file

    begun = int(resumed.report["timings"]["resumed_step"])
    if not 0 < begun <= killed:
        raise RuntimeError(f"{after}: killed at step {killed}, it began anew or from step {begun}, which shows nothing")
    steps = range(begun + 1, begun + COMPARED + 1)
    one, other = load_file(undisturbed.weights), load_file(resumed.weights)
    return Resumed(
        before=before,
        after=after,
        killed_at=killed,
        resumed_from=begun,
        weights_identical=one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one),
        weights_apart=max(float((one[name].float() - other[name].float()).abs().max()) for name in one),
        undisturbed=[undisturbed.losses[step] for step in sorted(undisturbed.losses)],
        resumed=[resumed.losses[step] for step in steps],
    )


def _request(folder: Path, layout: str, packed: Path, tokenizer: Path, *, any_layout: bool = False) -> Path:
    """For `python -m sluice.model.training.pretrain`."""
    folder.mkdir(exist_ok=True)
    content = launcher.request(
        folder, (packed, tokenizer), _PRETRAIN | dict(LAYOUTS[layout]), _MODEL, any_layout=any_layout
    )
    path = folder / f"{layout}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _program(request: Path, module: str, *arguments: str) -> list[str]:
    workers = json.loads(request.read_text(encoding="utf-8"))["config"]["workers"]
    return program(workers, module, *arguments)


def _to_the_end(request: Path) -> FinishedRun:
    said = run(request.stem, _program(request, "sluice.model.training.pretrain", str(request)), _RUN_S, _ENVIRONMENT)
    report, losses = launcher.results_of(said, request.parent)
    return FinishedRun(losses, report, request.parent / "out/model.safetensors")


def _kill(request: Path, step: int) -> None:
    """Run it until `step` steps are done and all its processes have ended themselves by SIGKILL.

    RuntimeError where one of them ended otherwise.
    """
    command = _program(request, "benchmarks.training.watched", "kill", str(request), str(step))
    ended = run_to_any_end(request.stem, command, _RUN_S, _ENVIRONMENT)
    workers = json.loads(request.read_text(encoding="utf-8"))["config"]["workers"]
    alive = [rank for rank in range(workers) if not mark_of(request, rank).is_file()]
    if alive:
        raise RuntimeError(f"ranks {alive} were to be killed at step {step}: {ended.failure(request.stem)}")
