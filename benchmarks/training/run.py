"""`make bench-train`: training beside transformers' Trainer; writes the measured tables of docs/training.md.

    python -m benchmarks.training [--quick | --smoke DIR | --again | --only SECTION ..] [--text FILE] [--artifacts DIR]

All but the section `accelerator` is measured on the processor, on a machine with a GPU too.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args
from unittest import mock

from benchmarks.model.shapes import SHAPES
from benchmarks.report import DOCS, keep, libraries, machine, save_figures, write_page
from benchmarks.training import accelerator
from benchmarks.training.ablation import ablate, measure_copying
from benchmarks.training.case import Case
from benchmarks.training.page import figures, gpu_tables, tables
from benchmarks.training.preset import measure_preset, stand_in
from benchmarks.training.recipes import CHANGES, COPYING, UNDONE, recipes
from benchmarks.training.results import Conditions, TrainingResults
from benchmarks.training.resume import measure_resume
from benchmarks.training.runs import in_turns
from sluice.components.params import load_block
from sluice.core.cpus import available_cores
from sluice.data.config import TokenizerConfig
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.machine_rates import measure_matmul_flops
from sluice.model.training.batches.settings import TextConfig
from sluice.model.training.batches.text import Packed, pack_text
from sluice.pipelines.compose import find_workspace

Section = Literal["speed", "resume", "shakespeare", "choices", "copying", "others", "accelerator"]

KEPT = "training-figures.json"
"""Beside the page, and in the repository with it: one section can be measured again and the others stay."""

_PATIENCE_S, _LOOK_S = 180.0, 5.0
"""Bound of the wait for a quiet machine before a section, and time between two looks at the load."""


SPEED = Case(library="sluice", steps=20, skipped=6, save_every=4)
"""Model and steps of the speed section, and how often its last case saves."""
_QUICK = SPEED.model_copy(update={"steps": 12, "skipped": 4})
_SMOKE = Case(library="sluice", shape="smoke", sequence=32, steps=6, skipped=2, save_every=2)


def main() -> None:
    arguments = _arguments()
    out = arguments.smoke or DOCS
    kept = out / KEPT
    if arguments.again:
        if not kept.is_file():
            raise SystemExit(f"{kept} does not exist: run the benchmark without --again once")
        results = TrainingResults.model_validate_json(kept.read_text(encoding="utf-8"))
    else:
        before = kept if kept.is_file() and not arguments.quick else None
        results = measure(arguments, before, (lambda _: None) if arguments.quick else partial(keep, kept))
    if not results.conditions and results.accelerated is not None:
        print(gpu_tables(results.accelerated))
        return
    print(*(found := tables(results)).values(), sep="\n\n")
    if not arguments.quick:
        write_page(out, "training.md", found)
        save_figures(out, figures(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure training beside transformers' Trainer.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="one short round of the speed alone; the page stays as it is")
    how.add_argument(
        "--smoke", type=Path, metavar="DIR", help="a tiny model's speed, to see that all runs; the page goes to DIR"
    )
    how.add_argument("--again", action="store_true", help="write the tables again from the last run's figures")
    how.add_argument(
        "--only",
        nargs="+",
        choices=get_args(Section),
        metavar="SECTION",
        help="measure these; keep the others of last time",
    )
    parser.add_argument("--text", type=Path, metavar="FILE", help="tiny Shakespeare; default: a stand-in is made")
    parser.add_argument("--seeds", type=int, default=3, help="of the preset and of the runs compared (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="of each candidate (default: 3)")
    parser.add_argument("--steps", type=int, default=120, help="of the default run beside other choices (default: 120)")
    parser.add_argument(
        "--artifacts",
        type=Path,
        metavar="DIR",
        help="artifacts of a whole `sluice run`, to run the default on with and without its choices",
    )
    arguments = parser.parse_args()
    if arguments.artifacts is None and (needy := {"choices", "copying", "others"}.intersection(arguments.only or ())):
        parser.error(f"--only {min(needy)} needs --artifacts DIR, the artifacts of a whole `sluice run`")
    for name in ("seeds", "rounds", "steps"):
        if (given := getattr(arguments, name)) < 1:
            parser.error(f"--{name} {given} must be at least 1")
    return arguments


def cases(cores: int, speed: Case) -> list[Case]:
    """Both libraries in the Trainer's default and in bf16 compiled, ours on two ranks too and with checkpoints."""
    own = speed.model_copy(update={"save_every": None, "threads": cores})
    compiled = own.model_copy(update={"precision": "bf16", "compiled": True})
    found = []
    for setting in (own, compiled):
        found += [setting, setting.model_copy(update={"library": "transformers"})]
        if cores > 1:
            found.append(setting.model_copy(update={"ranks": 2, "threads": cores // 2}))
    return [*found, own.model_copy(update={"save_every": speed.save_every})]


def measure(
    arguments: argparse.Namespace, before: Path | None, keep: Callable[[TrainingResults], None]
) -> TrainingResults:
    """Measure the wanted sections; the others stay as in `before`, the last figures.

    `keep` gets the results after every section: one that fails loses none before it.
    """
    results = TrainingResults()
    if before is not None:
        results = TrainingResults.model_validate_json(before.read_text(encoding="utf-8"))
    wanted = arguments.only or [*get_args(Section)]
    if arguments.quick or arguments.smoke:
        wanted = ["speed", "accelerator"] if arguments.smoke else ["speed"]
    # Before the GPUs are hidden: what CUDA sees first it sees for the life of this process.
    if not accelerator.at_hand() and arguments.only and "accelerator" in wanted:
        raise SystemExit(accelerator.ABSENT)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        if wanted != ["accelerator"]:
            with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": ""}):
                _measure_processor(results, wanted, arguments, Path(folder), keep)
        if "accelerator" in wanted:
            print("accelerator ..", file=sys.stderr, flush=True)
            plan = accelerator.SMOKE if arguments.smoke else accelerator.Plan()
            rounds = 1 if arguments.smoke else arguments.rounds
            found = accelerator.measure(plan, Path(folder) / "accelerator", rounds=rounds, threads=available_cores())
            results.accelerated = found or results.accelerated
            keep(results)
    return results


def _measure_processor(
    results: TrainingResults,
    wanted: list[str],
    arguments: argparse.Namespace,
    folder: Path,
    keep: Callable[[TrainingResults], None],
) -> None:
    if find_spec("accelerate") is None:
        raise SystemExit("transformers' Trainer needs accelerate, which is not installed: `make test` installs it")

    workspace = find_workspace()
    text = arguments.text or folder / "text.txt"
    if arguments.text is None and not {"speed", "resume", "shakespeare"}.isdisjoint(wanted):
        text.write_text(stand_in(workspace.state / "downloads"), encoding="utf-8")
    works: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: _measure_speed(text, folder, arguments),
        "resume": lambda: {"resumed": measure_resume(*pack(text, folder / "resume", "smoke"))},
        "shakespeare": lambda: {
            "shakespeare": measure_preset(text, folder, arguments.seeds, stands_in=arguments.text is None)
        },
    }
    if arguments.artifacts is not None:
        changed = partial(recipes, load_block(workspace, PretrainConfig), load_block(workspace, ModelConfig))
        steps = load_block(workspace, PretrainConfig).steps
        compared = partial(ablate, arguments.artifacts, seeds=arguments.seeds)
        works |= {
            "choices": lambda: {"choices": compared(changed(UNDONE), folder / "choices", steps=steps)},
            "copying": lambda: {
                "copying": measure_copying(
                    arguments.artifacts, [each for each in changed(UNDONE) if each.name in COPYING], steps=steps
                )
            },
            "others": lambda: {"others": compared(changed(CHANGES), folder / "others", steps=arguments.steps)},
        }
    for name, work in works.items():
        if name in wanted:
            print(f"{name} ..", file=sys.stderr, flush=True)
            conditions = _conditions()
            for field, figures_of_it in work().items():
                setattr(results, field, figures_of_it)
            results.conditions[name] = conditions
            keep(results)


def _measure_speed(text: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    cores = available_cores()
    speed = _SMOKE if arguments.smoke else _QUICK if arguments.quick else SPEED
    packed = pack(text, folder, speed.shape)
    rounds = 1 if arguments.quick or arguments.smoke else arguments.rounds

    def peaks() -> dict[str, float]:
        return {name: measure_matmul_flops(name, cores) for name in ("fp32", "bf16")}

    before = peaks()
    measured = in_turns(cases(cores, speed), packed.tokens, packed.tokenizer, rounds)
    # The machine may have been slower before than after: the larger is nearer to what it can do.
    matmul = {name: max(peak, before[name]) for name, peak in peaks().items()}
    flops_per_token = SHAPES[speed.shape].training_flops(speed.sequence)
    return {"measured": measured, "matmul": matmul, "flops_per_token": flops_per_token}


def _conditions() -> Conditions:
    """Conditions of this machine once it is quiet, or after a bounded wait: the section before kept it busy."""
    versions = libraries("torch", "transformers", "accelerate")
    last = time.monotonic() + _PATIENCE_S
    while True:
        load = round(os.getloadavg()[0], 2)
        found = Conditions(machine=machine(), libraries=versions, cores=available_cores(), load=load)
        if not found.busy or time.monotonic() > last:
            return found
        time.sleep(_LOOK_S)


def pack(path: Path, out: Path, shape: str) -> Packed:
    tokenizer = TokenizerConfig.model_validate({"vocab_size": SHAPES[shape].vocab_size})
    return pack_text(path, out, TextConfig.model_validate({"tokenizer": "bpe"}), tokenizer)
