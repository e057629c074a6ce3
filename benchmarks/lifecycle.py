"""`make bench`: the whole way in a fresh checkout, twice, and the model beside the peers it has to beat.

    python -m benchmarks.lifecycle [--workspace DIR] [--no-tests] [key=value ..]

Without --workspace this checkout's HEAD is cloned and run from nothing; with it, the last full and the last cached run
of an existing workspace are read. The tests of that checkout run last, alone, or not at all. Writes docs/benchmarks.md,
docs/benchmarks.svg and, where there is a browser, docs/data-card.png.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.picture import photograph
from sluice.components.params import load_block
from sluice.components.stage import read_metrics
from sluice.components.workspace import CONTENT_STEPS, STEPS, Workspace
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"
CARD_PIXELS = (1200, 1750)
ORDERS = (3, 4, 5, 6)
"""Bytes of context; an n-gram of n bytes has n - 1 of them."""


@dataclass(frozen=True)
class Suite:
    """A run of all tests."""

    tests: int
    skipped: int
    failed: int
    seconds: float


def main() -> None:
    from sluice.model.budget.rates import measure_matmul_flops

    parser = argparse.ArgumentParser(description="Measure the lifecycle and the model beside its peers.")
    parser.add_argument("--workspace", type=Path, help="read the last runs of this workspace instead of making them")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out, and their part of the page")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace) if arguments.workspace else fresh_runs(arguments.overrides)
    first, second = last_records(workspace)
    bits = measure_bits_per_byte(workspace)
    plot(bits, DOCS / "benchmarks.svg")
    photograph(workspace.state / "data-card.html", DOCS / "data-card.png", *CARD_PIXELS)
    peak = measure_matmul_flops("fp32", os.cpu_count() or 1)
    suite = None if arguments.no_tests else run_suite(workspace.root)
    evaluate, pretrain = read_metrics(workspace, "evaluate"), read_metrics(workspace, "pretrain")
    page = render(evaluate, pretrain, first, second, bits, peak=peak, suite=suite)
    (DOCS / "benchmarks.md").write_text(page)
    print(page)


def fresh_runs(overrides: list[str]) -> Workspace:
    """A clone of this checkout, run from nothing and run again."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-")) / "sluice"
    subprocess.run(["git", "clone", "--quiet", str(DOCS.parent), str(folder)], check=True)
    environment = {**os.environ, "SLUICE_WORKSPACE": str(folder), "PYTHONPATH": str(folder)}
    for _ in range(2):
        command = [sys.executable, "-m", "sluice.pipelines.cli", "run", *overrides]
        subprocess.run(command, cwd=folder, env=environment, check=True)
    return Workspace(folder)


def run_suite(folder: Path) -> Suite:
    """All tests of the checkout in `folder`, as `make test` runs them, by pytest's own count."""
    report = folder / ".sluice" / "tests.xml"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pytest", f"--junitxml={report}"], cwd=folder, env=environment, check=False)
    seconds = time.perf_counter() - started
    (counts,) = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 (pytest wrote it just now)
    tests, skipped, failures, errors = (int(counts.attrib[key]) for key in ("tests", "skipped", "failures", "errors"))
    return Suite(tests, skipped, failures + errors, seconds)


def last_records(workspace: Workspace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest run in which every content step ran, and the newest in which all were cached."""
    records = [json.loads(path.read_text()) for path in sorted(workspace.runs.glob("*/record.json"))]

    def cached_steps(record: dict[str, Any]) -> int:
        return sum(step["cached"] for step in record["steps"])

    full = [record for record in records if cached_steps(record) == 0]
    cached = [record for record in records if cached_steps(record) == len(CONTENT_STEPS)]
    if not full or not cached:
        raise SystemExit(f"{workspace.runs} holds no pair of a full and a cached run: leave --workspace out")
    return full[-1], cached[-1]


def measure_bits_per_byte(workspace: Workspace) -> dict[str, float]:
    """The model and its peers on the very same bytes; the peers learn from the text that the model learned from."""
    from sluice.model.evaluation.baselines import NgramModel, xz_bits_per_byte
    from sluice.model.evaluation.harness import held_out_texts, training_texts

    evaluate, split = load_block(workspace, "evaluate"), load_block(workspace, "pack")
    assert isinstance(evaluate, EvaluateConfig)
    assert isinstance(split, PackConfig)
    texts = held_out_texts(workspace.artifact("refine"), split, evaluate)
    training = training_texts(workspace.artifact("refine"), split)
    bits = {"sluice": read_metrics(workspace, "evaluate")["bits_per_byte"]}
    for order in ORDERS:
        bits[f"{order + 1}-gram"] = NgramModel.train(training, order).bits_per_byte(texts)
    return {**bits, "xz -9": xz_bits_per_byte(texts)}


def render(
    evaluate: dict[str, Any],
    pretrain: dict[str, Any],
    first: dict[str, Any],
    second: dict[str, Any],
    bits: dict[str, float],
    *,
    peak: float,
    suite: Suite | None,
) -> str:
    """docs/benchmarks.md; `peak` is what the largest matrix product reached, in FLOP/s."""
    lines = [
        "# Benchmarks",
        "",
        f"By `make bench`: one full run and one with nothing changed, on {machine()}, whose largest matrix product in "
        f"fp32 reached {peak / 1e9:.0f} GFLOP/s then. Seconds of wall time.",
        "",
        "## The whole way",
        "",
        "| step | first run | own work | second run |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, full, again in zip(STEPS, first["steps"], second["steps"], strict=True):
        repeated = "cached" if again["cached"] else f"{again['seconds']:.1f}"
        lines.append(f"| {name} | {full['seconds']:.1f} | {full['work_seconds']:.1f} | {repeated} |")
    share = 1 - first["work_seconds"] / first["seconds"]
    lines += [
        f"| **all** | **{first['seconds']:.0f}** | **{first['work_seconds']:.0f}** | **{second['seconds']:.0f}** |",
        "",
        f"{share:.0%} of the first run is spent outside the steps' own work: orchestration, imports, starting Ray and "
        "its workers.",
        "",
        "## Held-out text, bits per byte",
        "",
        f"{evaluate['documents']} documents that the model never saw; every peer learned from the text that the model "
        "learned from. An n-gram is of bytes, interpolated modified Kneser-Ney.",
        "",
        "| | bits per byte | model / peer |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {name} | {value:.3f} | {bits['sluice'] / value:.3f} |" for name, value in bits.items()]
    low, high = evaluate["bits_per_byte_low"], evaluate["bits_per_byte_high"]
    lines += [
        "",
        f"The model's interval is [{low:.3f}, {high:.3f}].",
        "",
        "![bits per byte](benchmarks.svg)",
        "",
        "## Multiple choice",
        "",
        f"Which of four held-out passages answers this heading: {evaluate['choice_accuracy']:.3f} "
        f"[{evaluate['choice_accuracy_low']:.3f}, {evaluate['choice_accuracy_high']:.3f}], "
        f"n={evaluate['choice_items']}, chance {evaluate['choice_chance']:.2f}.",
        "",
        "## Training",
        "",
        f"{pretrain['parameters']:,} parameters, {pretrain['tokens']:,} tokens at "
        f"{pretrain['timings']['tokens_per_second']:,.0f} tokens/s.",
        "",
        *([] if suite is None else _tests(suite)),
    ]
    return "\n".join(lines)


def _tests(suite: Suite) -> list[str]:
    minutes, seconds = divmod(round(suite.seconds), 60)
    return [
        "## The tests",
        "",
        f"{suite.tests:,} tests in {minutes} min {seconds} s with nothing beside them, the whole way on a tiny profile "
        f"and its kills among them: {suite.failed} failed, {suite.skipped} skipped.",
        "",
    ]


def machine() -> str:
    """The processor, by name and number of cores."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def plot(bits: dict[str, float], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sluice"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.8), layout="constrained")
    bars = axes.barh(list(bits), list(bits.values()), color=["#2f6fde", *["#9fb3c8"] * (len(bits) - 1)])
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("bits per byte of held-out text (lower is better)")
    axes.set_xlim(0, max(bits.values()) * 1.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
