"""`make bench-model`: our model beside transformers'; writes the tables of "Speed" in docs/model.md and their plot.

python -m benchmarks.model [--quick | --smoke DIR | --again | --accelerator-only] [--threads N]
"""

import argparse
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.model import accelerator
from benchmarks.model.case import Case, Library, Precision, Work
from benchmarks.model.page import figure, gpu_tables, tables
from benchmarks.model.peer import write_weights
from benchmarks.model.shapes import CPU_SHAPES, SHAPES
from benchmarks.model.turns import Comparison, ModelResults, in_turns
from benchmarks.report import DOCS, keep, libraries, machine, save_figures, write_page
from sluice.components.workspace import Workspace

_LIBRARIES: tuple[Library, ...] = ("sluice", "transformers")
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_TRAINING: tuple[tuple[Precision, bool], ...] = (("fp32", False), ("bf16", False), ("bf16", True))
"""(precision, compiled), each for both libraries."""
_GENERATION: tuple[tuple[Precision, bool], ...] = (*_TRAINING, ("fp32", True))


@dataclass(frozen=True)
class ModelPlan:
    shapes: tuple[str, ...] = CPU_SHAPES
    sequences: int = 2
    """Lengths of a shape. Compiled settings run at the first alone: compiling takes longer than all the rest."""
    rounds: int = 5


_QUICK = ModelPlan(("5M",), 1)
_SMOKE = ModelPlan(("smoke",), 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the model beside transformers'.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="5M parameters and 256 tokens only; the page stays as it is")
    size.add_argument("--smoke", type=Path, metavar="DIR", help="a tiny model, into DIR: a test run")
    size.add_argument("--accelerator-only", action="store_true", help="add a GPU's figures to those of the last run")
    size.add_argument("--again", action="store_true", help="write the tables again from the last run's figures")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--threads", type=int, default=cores, help=f"threads of both sides (default: all {cores} cores)"
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.threads <= cores:
        parser.error(f"--threads {arguments.threads} must be 1 to {cores}, the machine's cores")
    out = arguments.smoke or DOCS
    kept = (arguments.smoke or Workspace.find().state) / "bench-model.json"
    if arguments.again:
        results = ModelResults.model_validate_json(kept.read_text())
    elif arguments.accelerator_only:
        # The last run's figures, or none of a processor, with those of this machine's GPU.
        found = accelerator.measure(ModelPlan().rounds)
        if found is None:
            raise SystemExit("no GPU is available: torch.cuda.is_available() is false")
        results = ModelResults(machine=machine(), threads=cores, rounds=ModelPlan().rounds, libraries="")
        if kept.is_file():
            results = ModelResults.model_validate_json(kept.read_text())
        results.accelerated = found
    else:
        results = run(_SMOKE if arguments.smoke else _QUICK if arguments.quick else ModelPlan(), arguments.threads)
    if not results.training:
        assert results.accelerated is not None
        print(gpu_tables(results.accelerated))
        keep(kept, results)
        return
    print(*(page := tables(results)).values(), sep="\n\n")
    if not arguments.quick:
        keep(kept, results)
        write_page(out, "model.md", page)
        save_figures(out, {"model-speed.svg": figure(results)})


def run(plan: ModelPlan, threads: int) -> ModelResults:
    """Measure everything, both sides with as many threads."""
    versions = libraries("torch", "transformers")
    results = ModelResults(machine=machine(), threads=threads, rounds=plan.rounds, libraries=versions)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        for shape in plan.shapes:
            weights = str(Path(folder) / f"{shape}.safetensors")
            write_weights(Case(work="train", library="transformers", shape=shape), weights)
            for place, sequence in enumerate(SHAPES[shape].sequences[: plan.sequences]):
                with results.section(f"training {shape} {sequence}"):
                    chosen = training_cases(shape, sequence, threads, weights, compiled=place == 0)
                    _measure_training(results, shape, sequence, chosen)
            with results.section(f"generation {shape}"):
                length = SHAPES[shape].generated
                chosen = _cases("generate", _GENERATION, shape=shape, sequence=length, threads=threads, weights=weights)
                candidates = in_turns(chosen, plan.rounds)
                results.generation.append(Comparison(shape=shape, sequence=length, candidates=candidates))
    with results.section("accelerator"):
        results.accelerated = accelerator.measure(plan.rounds)
    return results


def _measure_training(results: ModelResults, shape: str, sequence: int, cases: dict[str, Case]) -> None:
    """Add a comparison, and the largest product measured between its rounds."""
    products: dict[str, Case] = {
        each: Case(work="matmul", precision=each, threads=results.threads) for each in _PRECISIONS
    }
    found = in_turns({**cases, **products}, results.rounds)
    candidates = {name: found[name] for name in cases}
    results.training.append(Comparison(shape=shape, sequence=sequence, candidates=candidates))
    for name in products:
        results.matmul[name] = max(results.matmul.get(name, 0.0), found[name].best)


def training_cases(shape: str, sequence: int, threads: int, weights: str, *, compiled: bool = True) -> dict[str, Case]:
    """Both libraries in every setting, or in every one that is not compiled."""
    settings = [each for each in _TRAINING if compiled or not each[1]]
    return _cases("train", settings, shape=shape, sequence=sequence, threads=threads, weights=weights)


def _cases(work: Work, settings: Iterable[tuple[Precision, bool]], **common: Any) -> dict[str, Case]:
    cases = [
        Case(work=work, library=library, precision=precision, compiled=compiled, **common)
        for precision, compiled in settings
        for library in _LIBRARIES
    ]
    return {f"{case.library}, {case.setting}": case for case in cases}
