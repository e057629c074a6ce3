"""`make bench-model`: our model beside transformers' in one run; writes "Speed" in docs/model.md and its plot.

    python -m benchmarks.model [--quick | --smoke DIR | --again | --accelerator-only] [--threads N]

Candidates' processes import this file as it stands, so all that weighs is imported where it is used.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.model.case import Case, Library, Precision
from benchmarks.model.shapes import CPU_SHAPES, SHAPES

if TYPE_CHECKING:
    from benchmarks.model.results import Comparison, Results

DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT = "bench-model.json"
_LIBRARIES: tuple[Library, ...] = ("sluice", "transformers")
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_SETTINGS: tuple[tuple[Precision, bool], ...] = (("fp32", False), ("bf16", False), ("bf16", True))
"""Of training: precision and whether compiled; each for both libraries."""
_GENERATION_SETTINGS: tuple[tuple[Precision, bool], ...] = (*_SETTINGS, ("fp32", True))


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    shapes: tuple[str, ...] = CPU_SHAPES
    sequences: int = 2
    """Of the lengths of a shape. Compiled settings run at the first alone: compiling takes longer than all the rest."""
    rounds: int = 5


_QUICK = Plan(("5M",), 1)
_SMOKE = Plan(("smoke",), 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the model beside transformers'.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="5M parameters and 256 tokens only; the page stays as it is")
    size.add_argument(
        "--smoke", type=Path, metavar="DIR", help="a tiny model, to see that all runs; the page goes to DIR"
    )
    size.add_argument("--accelerator-only", action="store_true", help="add a GPU's figures to those of the last run")
    size.add_argument("--again", action="store_true", help="write the section again from the last run's figures")
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", type=int, default=cores, help=f"of both sides; default: {cores}, all cores")
    arguments = parser.parse_args()
    if not 1 <= arguments.threads <= cores:
        parser.error(f"--threads {arguments.threads} must be 1 to {cores}, the machine's cores")
    from benchmarks.model.page import render
    from benchmarks.model.plots import draw
    from benchmarks.model.results import Results
    from benchmarks.model.section import put

    out = arguments.smoke or DOCS
    kept = out / KEPT if arguments.smoke else _state() / KEPT
    if arguments.again:
        results = Results.model_validate_json(kept.read_text())
    elif arguments.accelerator_only:
        results = _with_accelerator(kept)
    else:
        results = run(_SMOKE if arguments.smoke else _QUICK if arguments.quick else Plan(), arguments.threads)
    section = render(results) if results.training else _only_accelerator(results)
    print(section)
    if arguments.quick:
        return
    out.mkdir(parents=True, exist_ok=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(results.model_dump_json(indent=1))
    if not results.training:
        return
    draw(results, out)
    page = out / "model.md"
    page.write_text(put(page.read_text(encoding="utf-8") if page.is_file() else "", "speed", section), encoding="utf-8")


def run(plan: Plan, threads: int) -> "Results":
    """Measure everything, both sides with as many threads."""
    from importlib.metadata import version

    from benchmarks.model import accelerator
    from benchmarks.model.results import Results

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    results = Results(machine=machine(), threads=threads, rounds=plan.rounds, libraries=libraries)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        for shape in plan.shapes:
            weights = str(Path(folder) / f"{shape}.safetensors")
            _write_weights(shape, weights)
            for place, sequence in enumerate(SHAPES[shape].sequences[: plan.sequences]):
                with _section(results, f"training {shape} {sequence}"):
                    _training(results, shape, sequence, weights, compiled=place == 0)
            with _section(results, f"generation {shape}"):
                results.generation.append(_generation(results, shape, weights))
    with _section(results, "accelerator"):
        results.accelerated = accelerator.measure(plan.rounds)
    return results


def _write_weights(shape: str, path: str) -> None:
    from benchmarks.model.peer import write_weights

    write_weights(Case(work="train", library="transformers", shape=shape), path)


def _training(results: "Results", shape: str, sequence: int, weights: str, *, compiled: bool) -> None:
    """Adds a comparison, and what the largest product reached between its rounds."""
    from benchmarks.model.results import Comparison
    from benchmarks.model.turns import in_turns

    cases = training_cases(shape, sequence, results.threads, weights, compiled=compiled)
    products: dict[str, Case] = {
        each: Case(work="matmul", precision=each, threads=results.threads) for each in _PRECISIONS
    }
    found = in_turns({**cases, **products}, results.rounds)
    results.training.append(
        Comparison(shape=shape, sequence=sequence, candidates={name: found[name] for name in cases})
    )
    for name in products:
        results.matmul[name] = max(results.matmul.get(name, 0.0), found[name].best)


def training_cases(shape: str, sequence: int, threads: int, weights: str, *, compiled: bool = True) -> dict[str, Case]:
    """Both libraries in every setting, or in every one that is not compiled."""
    cases = [
        Case(
            work="train",
            library=library,
            precision=precision,
            compiled=compiles,
            shape=shape,
            sequence=sequence,
            threads=threads,
            weights=weights,
        )
        for precision, compiles in _SETTINGS
        if compiled or not compiles
        for library in _LIBRARIES
    ]
    return {f"{case.library}, {case.setting}": case for case in cases}


def _generation(results: "Results", shape: str, weights: str) -> "Comparison":
    from benchmarks.model.results import Comparison
    from benchmarks.model.turns import in_turns

    sequence = SHAPES[shape].generated
    cases = [
        Case(
            work="generate",
            library=library,
            precision=precision,
            compiled=compiled,
            shape=shape,
            sequence=sequence,
            threads=results.threads,
            weights=weights,
        )
        for precision, compiled in _GENERATION_SETTINGS
        for library in _LIBRARIES
    ]
    named = {f"{case.library}, {case.setting}": case for case in cases}
    return Comparison(shape=shape, sequence=sequence, candidates=in_turns(named, results.rounds))


def _with_accelerator(kept: Path) -> "Results":
    """The last run's figures, or none of a processor, with those of this machine's GPU. Exits where there is none."""
    from benchmarks.model import accelerator
    from benchmarks.model.results import Results

    found = accelerator.measure(Plan().rounds)
    if found is None:
        raise SystemExit("no GPU is at hand: torch.cuda.is_available() is false")
    if kept.is_file():
        return Results.model_validate_json(kept.read_text()).model_copy(update={"accelerated": found})
    return Results(
        machine=machine(), threads=os.cpu_count() or 1, rounds=Plan().rounds, libraries="", accelerated=found
    )


def _only_accelerator(results: "Results") -> str:
    from benchmarks.model.page import accelerated

    assert results.accelerated is not None
    return accelerated(results.accelerated)


def _state() -> Path:
    from sluice.components.workspace import Workspace

    return Workspace.find().state


@contextmanager
def _section(results: "Results", name: str) -> Iterator[None]:
    results.loads[name] = os.getloadavg()[0]
    print(f"{name} ..", file=sys.stderr, flush=True)
    started = time.perf_counter()
    yield
    results.seconds[name] = time.perf_counter() - started


def machine() -> str:
    """The processor, by name and number of cores."""
    from benchmarks.report import machine as processor

    return processor()


if __name__ == "__main__":
    main()
