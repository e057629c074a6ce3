"""Runs that are killed by SIGKILL at a drawn step and go on, beside runs that were not: in the same layout, and in
another.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.training.results import Resumed

STEPS, SAVE_EVERY, COMPARED = 160, 10, 50
_FIRST_KILL, _LAST_KILL = 15, 75
"""Steps done between which the kill is drawn: behind a checkpoint, and with `COMPARED` steps to come."""
_RUN_S = 1200.0
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
"""(layout that was killed, layout that goes on)."""


class Left(NamedTuple):
    """What a run left."""

    losses: dict[int, float]
    """By step, counted from 1."""
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
        return [
            _killed_and_resumed(
                folder / f"{before} to {after}",
                (before, after),
                (packed, tokenizer),
                undisturbed[before],
                draw.randint(_FIRST_KILL, _LAST_KILL),
            )
            for before, after in pairs
        ]


def _killed_and_resumed(
    folder: Path, layouts: tuple[str, str], tokens: tuple[Path, Path], undisturbed: Left, kill: int
) -> Resumed:
    before, after = layouts
    print(f"  {before}, killed at step {kill}, resumed as {after} ..", file=sys.stderr, flush=True)
    killed = _kill(_request(folder, before, *tokens), kill)
    resumed = _to_the_end(_request(folder, after, *tokens, any_layout=before != after))
    return compare(before, after, killed, undisturbed, resumed)


def compare(before: str, after: str, killed: int, undisturbed: Left, resumed: Left) -> Resumed:
    """The steps behind the checkpoint that it went on from, and the last weights.

    RuntimeError for a run that did not go on.
    """
    import torch
    from safetensors.torch import load_file

    begun = int(resumed.report["timings"]["resumed_step"])
    if not 0 < begun <= killed:
        raise RuntimeError(f"{after}: killed at step {killed}, it began anew or from step {begun}, which shows nothing")
    steps = range(begun + 1, begun + COMPARED + 1)
    pairs = [(undisturbed.losses[step], resumed.losses[step]) for step in steps]
    one, other = load_file(undisturbed.weights), load_file(resumed.weights)
    return Resumed(
        before=before,
        after=after,
        killed_at=killed,
        resumed_from=begun,
        identical=sum(left.hex() == right.hex() for left, right in pairs),
        loss_apart=max(abs(left - right) for left, right in pairs),
        weights_identical=one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one),
        weights_apart=max(float((one[name].float() - other[name].float()).abs().max()) for name in one),
        undisturbed=[undisturbed.losses[step] for step in sorted(undisturbed.losses)],
        resumed=[resumed.losses[step] for step in steps],
    )


def _request(folder: Path, layout: str, packed: Path, tokenizer: Path, *, any_layout: bool = False) -> Path:
    """For `python -m model.training.pretrain`."""
    folder.mkdir(exist_ok=True)
    content = {
        "config": _PRETRAIN | dict(LAYOUTS[layout]),
        "model": _MODEL,
        "packed": str(packed),
        "tokenizer": str(tokenizer),
        "out": str(folder / "out"),
        "checkpoints": str(folder / "checkpoints"),
        "any_layout": any_layout,
    }
    path = folder / f"{layout}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _start(request: Path) -> "subprocess.Popen[str]":
    workers = json.loads(request.read_text(encoding="utf-8"))["config"]["workers"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, *torchrun, "-m", "model.training.pretrain", str(request)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _to_the_end(request: Path) -> Left:
    process = _start(request)
    try:
        said, errors = process.communicate(timeout=_RUN_S)
    finally:
        _kill_all(process)
    if process.returncode:
        last = (errors.strip().splitlines() or ["nothing said"])[-1]
        raise RuntimeError(f"{request.stem} ended with status {process.returncode}: {last}")
    report = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    out = request.parent / "out"
    rows = [json.loads(line) for line in (out / "training.jsonl").read_text(encoding="utf-8").splitlines()]
    return Left({row["step"]: row["loss"] for row in rows if "loss" in row}, report, out / "model.safetensors")


def _kill(request: Path, step: int) -> int:
    """End all processes of a run by SIGKILL once it has done `step` steps; returns how many it had said."""
    process = _start(request)
    assert process.stderr is not None
    done = 0
    try:
        for line in process.stderr:
            head, slash, _ = line.partition("/")
            done = int(head) if slash and head.isdigit() else done
            if done >= step:
                break
    finally:
        _kill_all(process)
        process.communicate()
    if process.returncode != -signal.SIGKILL or not step <= done <= STEPS - COMPARED:
        raise RuntimeError(f"{request.stem} was to be killed at step {step}, and was at {done}")
    return done


def _kill_all(process: "subprocess.Popen[str]") -> None:
    """The run and its workers, each of which is a session of its own."""
    if process.poll() is not None:
        return
    launcher = psutil.Process(process.pid)
    for each in (*launcher.children(recursive=True), launcher):
        with suppress(psutil.NoSuchProcess):
            each.kill()
