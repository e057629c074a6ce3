"""`make bench-train`: training beside transformers' Trainer; writes the measured sections of docs/training.md.

    python -m benchmarks.training [--quick | --smoke DIR | --again | --only SECTION ..] [--text FILE] [--artifacts DIR]

Processes of the runs compared import this file as it stands, so all that weighs is imported where it is used. All but
the section `accelerator` is measured on the processor, on a machine with a GPU too.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from benchmarks.training.case import Case
from sluice.core.cpus import available_cores

if TYPE_CHECKING:
    from benchmarks.training.results import Conditions, Results
    from sluice.model.training.batches.text import Packed

Section = Literal["speed", "resume", "shakespeare", "choices", "copying", "others", "accelerator"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT = "training-figures.json"
"""Beside the page, and in the repository with it: a section can be measured anew and the others stay."""

_PATIENCE_S, _LOOK_S = 180.0, 5.0
"""How long a section waits for a quiet machine, and between two looks."""


@dataclass(frozen=True)
class Plan:
    """What the speed is measured with."""

    shape: str = "5M"
    sequence: int = 256
    steps: int = 20
    skipped: int = 6
    save_every: int = 4


_QUICK = Plan(steps=12, skipped=4, save_every=4)
_SMOKE = Plan("smoke", 32, steps=6, skipped=2, save_every=2)


def main() -> None:
    arguments = _arguments()
    from benchmarks.model.section import put
    from benchmarks.training.page import accelerated, sections
    from benchmarks.training.plots import draw
    from benchmarks.training.results import Results
    from sluice.components.workspace import Workspace

    out = arguments.smoke or DOCS
    kept = out / KEPT
    if arguments.again:
        if not kept.is_file():
            raise SystemExit(f"{kept} does not exist: run the benchmark without --again once")
        results = Results.model_validate_json(kept.read_text(encoding="utf-8"))
    else:
        before = kept if kept.is_file() and not arguments.quick else None
        keep = (lambda _: None) if arguments.quick else partial(_keep, kept)
        results = measure(arguments, Workspace.find().state / "downloads", before, keep)
    found = sections(results)
    if not found and results.accelerated is not None:
        # What stands beside it on the page is of a processor.
        print(accelerated(results.accelerated))
    print("\n\n".join(found.values()))
    if arguments.quick:
        return
    draw(results, out)
    page = out / "training.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    for name, section in found.items():
        text = put(text, name, section)
    page.write_text(text, encoding="utf-8")


def _keep(path: Path, results: "Results") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure training beside transformers' Trainer.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="one short round of the speed alone; the page stays as it is")
    how.add_argument(
        "--smoke", type=Path, metavar="DIR", help="a tiny model's speed, to see that all runs; the page goes to DIR"
    )
    how.add_argument("--again", action="store_true", help="write the section again from the last run's figures")
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


def cases(cores: int, plan: Plan) -> list[Case]:
    """Both libraries in the Trainer's default and in bf16 compiled, ours on two ranks too and with checkpoints."""
    own = Case(
        library="sluice",
        shape=plan.shape,
        sequence=plan.sequence,
        steps=plan.steps,
        skipped=plan.skipped,
        threads=cores,
    )
    compiled = own.model_copy(update={"precision": "bf16", "compiled": True})
    found = []
    for setting in (own, compiled):
        found += [setting, setting.model_copy(update={"library": "transformers"})]
        if cores > 1:
            found.append(setting.model_copy(update={"ranks": 2, "threads": cores // 2}))
    return [*found, own.model_copy(update={"save_every": plan.save_every})]


def measure(
    arguments: argparse.Namespace, cache: Path, before: Path | None, keep: Callable[["Results"], None]
) -> "Results":
    """The sections asked for; those that are not, or cannot be measured here, stay as in `before`, the last figures.
    `keep` hears of every section when it is measured: one that fails loses none before it.
    """
    from benchmarks.training import accelerator
    from benchmarks.training.results import Results

    results = Results()
    if before is not None:
        results = Results.model_validate_json(before.read_text(encoding="utf-8"))
    wanted = _wanted(arguments)
    # Before they are hidden: what CUDA sees first it sees for the life of this process.
    at_hand = accelerator.at_hand()
    if arguments.only and "accelerator" in wanted and not at_hand:
        raise SystemExit(accelerator.ABSENT)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        if wanted != ["accelerator"]:
            with _without_gpus():
                _measure_processor(results, wanted, arguments, Path(folder), cache, keep)
        if "accelerator" in wanted:
            print("accelerator ..", file=sys.stderr, flush=True)
            plan = accelerator.SMOKE if arguments.smoke else accelerator.Plan()
            rounds = 1 if arguments.smoke else arguments.rounds
            found = accelerator.measure(plan, Path(folder) / "accelerator", rounds=rounds, threads=available_cores())
            results.accelerated = found or results.accelerated
            keep(results)
    return results


def _wanted(arguments: argparse.Namespace) -> list[str]:
    if arguments.quick:
        return ["speed"]
    if arguments.smoke:
        return ["speed", "accelerator"]
    return arguments.only or [*get_args(Section)]


@contextmanager
def _without_gpus() -> Iterator[None]:
    """Processes that are started inside see no GPU."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    os.environ[name] = ""
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _measure_processor(  # noqa: PLR0917
    results: "Results",
    wanted: list[str],
    arguments: argparse.Namespace,
    folder: Path,
    cache: Path,
    keep: Callable[["Results"], None],
) -> None:
    _require_trainer()
    path = arguments.text or folder / "text.txt"
    if arguments.text is None and not {"speed", "resume", "shakespeare"}.isdisjoint(wanted):
        from benchmarks.training.stand_in import stand_in

        path.write_text(stand_in(cache), encoding="utf-8")
    if "speed" in wanted:
        with _section(results, "speed", keep):
            _measure_speed(results, path, folder, arguments)
    if "resume" in wanted:
        from benchmarks.training.resume import measure_resume

        with _section(results, "resume", keep):
            packed = pack(path, folder / "resume", "smoke")
            results.resumed = measure_resume(packed.tokens, packed.tokenizer)
    if "shakespeare" in wanted:
        from benchmarks.training.preset import measure_preset

        with _section(results, "shakespeare", keep):
            stands_in = arguments.text is None
            results.shakespeare = measure_preset(path, folder, arguments.seeds, stands_in=stands_in)
    if arguments.artifacts is not None:
        _measure_default(results, wanted, arguments, folder, keep)


def _measure_speed(results: "Results", text: Path, folder: Path, arguments: argparse.Namespace) -> None:
    from benchmarks.model.shapes import SHAPES
    from benchmarks.training.runs import in_turns

    cores = available_cores()
    plan = _SMOKE if arguments.smoke else _QUICK if arguments.quick else Plan()
    packed = pack(text, folder, plan.shape)
    results.flops_per_token = SHAPES[plan.shape].training_flops(plan.sequence)
    rounds = 1 if arguments.quick or arguments.smoke else arguments.rounds
    peaks = _peaks(cores)
    results.measured = in_turns(cases(cores, plan), packed.tokens, packed.tokenizer, rounds)
    # The machine may have been slower before than after: the larger is nearer to what it can do.
    results.matmul = {name: max(peak, peaks[name]) for name, peak in _peaks(cores).items()}


def _peaks(threads: int) -> dict[str, float]:
    from sluice.model.planner.machine_rates import measure_matmul_flops

    return {"fp32": measure_matmul_flops("fp32", threads), "bf16": measure_matmul_flops("bf16", threads)}


def _measure_default(
    results: "Results",
    wanted: list[str],
    arguments: argparse.Namespace,
    folder: Path,
    keep: Callable[["Results"], None],
) -> None:
    from benchmarks.training.ablation import ablate
    from benchmarks.training.copying import measure_copying
    from benchmarks.training.recipes import CHANGES, COPYING, UNDONE, recipes
    from sluice.components.params import load_block
    from sluice.components.workspace import Workspace
    from sluice.model.architecture.config import ModelConfig
    from sluice.model.config import PretrainConfig

    workspace = Workspace.find()
    pretrain, model = load_block(workspace, PretrainConfig), load_block(workspace, ModelConfig)
    compared = partial(ablate, arguments.artifacts, seeds=arguments.seeds)
    if "choices" in wanted:
        with _section(results, "choices", keep):
            results.choices = compared(recipes(pretrain, model, UNDONE), folder / "choices", steps=pretrain.steps)
    if "copying" in wanted:
        with _section(results, "copying", keep):
            shown = [each for each in recipes(pretrain, model, UNDONE) if each.name in COPYING]
            results.copying = measure_copying(arguments.artifacts, shown, steps=pretrain.steps)
    if "others" in wanted:
        with _section(results, "others", keep):
            results.others = compared(recipes(pretrain, model, CHANGES), folder / "others", steps=arguments.steps)


def _require_trainer() -> None:
    from importlib.util import find_spec

    if find_spec("accelerate") is None:
        raise SystemExit("transformers' Trainer needs accelerate, which is not installed: make test installs it")


@contextmanager
def _section(results: "Results", name: str, keep: Callable[["Results"], None]) -> Iterator[None]:
    """The figures of a section, measured inside, with what they were measured on."""
    print(f"{name} ..", file=sys.stderr, flush=True)
    conditions = _conditions()
    yield
    results.conditions[name] = conditions
    keep(results)


def _conditions() -> "Conditions":
    """Of this machine, once it is as quiet as it gets: the section before is what it was busy with."""
    from importlib.metadata import version

    from benchmarks.report import machine
    from benchmarks.training.results import Conditions

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate"))
    last = time.monotonic() + _PATIENCE_S
    while True:
        found = Conditions(
            machine=machine(), libraries=libraries, cores=available_cores(), load=round(os.getloadavg()[0], 2)
        )
        if not found.busy or time.monotonic() > last:
            return found
        time.sleep(_LOOK_S)


def pack(path: Path, out: Path, shape: str) -> "Packed":
    """The text in as many tokens as the common model knows."""
    from benchmarks.model.shapes import SHAPES
    from sluice.data.config import TokenizerConfig
    from sluice.model.training.batches.settings import TextConfig
    from sluice.model.training.batches.text import pack_text

    tokenizer = TokenizerConfig.model_validate({"vocab_size": SHAPES[shape].vocab_size})
    return pack_text(path, out, TextConfig.model_validate({"tokenizer": "bpe"}), tokenizer)


if __name__ == "__main__":
    main()
