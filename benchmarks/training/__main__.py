"""`make bench-train`: training beside transformers' Trainer in one run; writes "Speed" in docs/training.md.

python -m benchmarks.training [--quick] [--again] [--text FILE] [--seeds N] [--cache DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.training.case import Case, Results, Shakespeare

if TYPE_CHECKING:
    from model.training.batches.text import Packed

DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT = "bench-training.json"
TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_PRESET_S = 3600.0
_SHAPE, _SEQUENCE = "5M", 256


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure training beside transformers' Trainer.")
    parser.add_argument("--quick", action="store_true", help="one round, no runs of the preset; the page stays")
    parser.add_argument("--again", action="store_true", help="write the section again from the last run's figures")
    parser.add_argument("--text", type=Path, metavar="FILE", help="tiny Shakespeare; default: a stand-in is made")
    parser.add_argument("--seeds", type=int, default=3, help="runs of the preset (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="of each candidate (default: 3)")
    arguments = parser.parse_args()
    from benchmarks.model.section import put
    from benchmarks.training.page import render
    from components.workspace import Workspace

    kept = Workspace.find().state / KEPT
    if arguments.again:
        results = Results.model_validate_json(kept.read_text(encoding="utf-8"))
    else:
        rounds, seeds = (1, 0) if arguments.quick else (arguments.rounds, arguments.seeds)
        results = measure(arguments.text, kept.parent / "downloads", rounds, seeds)
    section = render(results)
    print(section)
    if arguments.quick:
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(results.model_dump_json(indent=1), encoding="utf-8")
    page = DOCS / "training.md"
    page.write_text(put(page.read_text(encoding="utf-8") if page.is_file() else "", "speed", section), encoding="utf-8")


def cases(threads: int) -> list[Case]:
    """Both libraries in the Trainer's default and in bf16 compiled; ours on 1 thread and on 2 ranks of 1 besides."""
    both = [
        Case(library=library, shape=_SHAPE, sequence=_SEQUENCE, precision=precision, compiled=compiled, threads=threads)
        for precision, compiled in (("fp32", False), ("bf16", True))
        for library in ("sluice", "transformers")
    ]
    ranks = [Case(library="sluice", shape=_SHAPE, sequence=_SEQUENCE, ranks=each, threads=1) for each in (1, 2)]
    return both + [each for each in ranks if each not in both and each.ranks * each.threads <= max(2, threads)]


def measure(text: Path | None, cache: Path, rounds: int, seeds: int) -> Results:
    from importlib.metadata import version

    from benchmarks.lifecycle import machine
    from benchmarks.model.shapes import SHAPES
    from benchmarks.training.runs import in_turns
    from benchmarks.training.stand_in import stand_in
    from model.budget.rates import measure_matmul_flops

    threads = os.cpu_count() or 1
    _require_trainer()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate"))
    results = Results(machine=machine(), libraries=libraries)
    results.matmul = {"fp32": measure_matmul_flops("fp32", threads), "bf16": measure_matmul_flops("bf16", threads)}
    results.flops_per_token = SHAPES[_SHAPE].training_flops(_SEQUENCE)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        path = text or Path(folder) / "text.txt"
        if text is None:
            path.write_text(stand_in(cache), encoding="utf-8")
        packed = pack(path, Path(folder))
        results.loads["training"] = os.getloadavg()[0]
        results.measured = in_turns(cases(threads), packed.tokens, packed.tokenizer, rounds)
        results.data_share = _data_share(packed, Path(folder))
        results.loads["shakespeare"] = os.getloadavg()[0]
        if seeds:
            results.shakespeare = preset(path, Path(folder), seeds, stands_in=text is None)
    return results


def _require_trainer() -> None:
    from importlib.util import find_spec

    if find_spec("accelerate") is None:
        raise SystemExit("transformers' Trainer needs accelerate, which is not installed: uv pip install accelerate")


def pack(path: Path, out: Path) -> "Packed":
    """The text in the tokens of the common model."""
    from benchmarks.model.shapes import SHAPES
    from data.config import TokenizerConfig
    from model.training.batches.settings import TextConfig
    from model.training.batches.text import pack_text

    return pack_text(path, out, TextConfig(tokenizer="bpe"), TokenizerConfig(vocab_size=SHAPES[_SHAPE].vocab_size))


def preset(path: Path, folder: Path, seeds: int, *, stands_in: bool) -> Shakespeare:
    """`sluice train experiment=shakespeare-char-cpu` for each seed, and nanoGPT's recipe once, on one text."""
    from benchmarks.training.nanogpt import Recipe, train
    from data.manifest import file_hash

    found = []
    for seed in range(seeds):
        settings = ["experiment=shakespeare-char-cpu", f"data.path={path}", f"pretrain.seed={seed}"]
        command = [sys.executable, "-m", "pipelines.cli", "train", *settings, "--out", str(folder / f"seed-{seed}")]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=_PRESET_S, check=False)
        if done.returncode:
            raise RuntimeError(f"the preset failed: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    reference, *_ = train(path.read_bytes().decode(), Recipe(), seed=0)
    is_tiny = file_hash(path) == TINY_SHA256
    name = "tiny Shakespeare" if is_tiny else "the stand-in text" if stands_in else path.name
    return Shakespeare(
        text=name,
        is_tiny_shakespeare=is_tiny,
        ours=[each["validation_loss"] for each in found],
        reference=reference,
        parameters=found[0]["parameters"],
        tokens=found[0]["tokens"],
    )


def _data_share(packed: "Packed", folder: Path) -> float:
    """Of a step's time, what reading its batch takes."""
    from benchmarks.training.runs import request_of
    from model.architecture.config import ModelConfig
    from model.config import PretrainConfig
    from model.training.telemetry.profiling import PHASES, profile_steps

    case = Case(library="sluice", shape=_SHAPE, sequence=_SEQUENCE)
    request = request_of(case, packed.tokens, packed.tokenizer, folder)
    found = profile_steps(
        PretrainConfig.model_validate(request["config"]),
        ModelConfig.model_validate(request["model"]),
        packed.tokens,
        folder / "profile",
        steps=3,
    )
    return found.phases_ms[PHASES[0]] / found.step_ms


if __name__ == "__main__":
    main()
