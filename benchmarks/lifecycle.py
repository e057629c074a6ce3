"""`make bench`: the whole lifecycle in a fresh checkout, twice, and the model beside its peers.

    python -m benchmarks.lifecycle [--workspace DIR] [--no-tests] [key=value ..]

Without --workspace this checkout's HEAD is cloned and run from nothing; with it, the last full and the last cached run
of an existing workspace are read. The tests of that checkout run last, alone. Writes the tables of docs/benchmarks.md,
docs/benchmarks.svg and, where there is a browser, docs/data-card.png.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib.figure import Figure

from benchmarks.markers import markdown
from benchmarks.report import DOCS, OURS, THEIRS, machine, save_figures, write_page
from sluice.components.artifact import read_metrics
from sluice.components.params import load_block
from sluice.components.workspace import CONTENT_STEPS, STEPS, Workspace
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig

CARD_PIXELS = (1200, 1750)
ORDERS = (3, 4, 5, 6)
"""Bytes of context; an n-gram of n bytes has n - 1 of them."""

Record = dict[str, Any]
"""A run's record, or the metrics of a step."""


def main() -> None:
    from sluice.model.planner.machine_rates import measure_matmul_flops

    parser = argparse.ArgumentParser(description="Measure the lifecycle and the model beside its peers.")
    parser.add_argument("--workspace", type=Path, help="read the last runs of this workspace instead of making them")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out, and their part of the page")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace) if arguments.workspace else fresh_runs(arguments.overrides)
    first, second = last_records(workspace)
    bits = measure_bits_per_byte(workspace)
    save_figures(DOCS, {"benchmarks.svg": plot(bits)})
    photograph(workspace.state / "data-card.html", DOCS / "data-card.png", *CARD_PIXELS)
    peak = measure_matmul_flops("fp32", os.cpu_count() or 1)
    evaluate, pretrain = read_metrics(workspace, "evaluate"), read_metrics(workspace, "pretrain")
    measured = [("machine", machine()), ("largest matrix product, fp32", f"{peak / 1e9:.0f} GFLOP/s")]
    found = {"machine": markdown(" | ", measured), **tables(evaluate, pretrain, first, second, bits)}
    if not arguments.no_tests:
        found["tests"] = run_suite(workspace.root)
    write_page(DOCS, "benchmarks.md", found)
    print(*found.values(), sep="\n\n")


def fresh_runs(overrides: list[str]) -> Workspace:
    """A clone of this checkout, run from nothing and run again."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-")) / "sluice"
    subprocess.run(["git", "clone", "--quiet", str(DOCS.parent), str(folder)], check=True)
    environment = {**os.environ, "SLUICE_WORKSPACE": str(folder), "PYTHONPATH": str(folder)}
    for _ in range(2):
        command = [sys.executable, "-m", "sluice.pipelines.cli", "run", *overrides]
        subprocess.run(command, cwd=folder, env=environment, check=True)
    return Workspace(folder)


def run_suite(folder: Path) -> str:
    """Table of a run of all tests of the checkout in `folder`, as `make test` runs them, by pytest's own counts."""
    report = folder / ".sluice" / "tests.xml"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pytest", f"--junitxml={report}"], cwd=folder, env=environment, check=False)
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    (counts,) = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 (pytest wrote it just now)
    tests, skipped, failures, errors = (int(counts.attrib[key]) for key in ("tests", "skipped", "failures", "errors"))
    row = (f"{tests:,}", f"{failures + errors}", f"{skipped}", f"{minutes} min {seconds} s")
    return markdown(">tests | >failed | >skipped | >time", [row])


def last_records(workspace: Workspace) -> tuple[Record, Record]:
    """The newest run in which every content step ran, and the newest in which all were cached."""
    records = [json.loads(path.read_text()) for path in sorted(workspace.runs.glob("*/record.json"))]

    def cached_steps(record: Record) -> int:
        return sum(step["cached"] for step in record["steps"])

    full = [record for record in records if cached_steps(record) == 0]
    cached = [record for record in records if cached_steps(record) == len(CONTENT_STEPS)]
    if not full or not cached:
        raise SystemExit(f"{workspace.runs} holds no pair of a full and a cached run: leave --workspace out")
    return full[-1], cached[-1]


def measure_bits_per_byte(workspace: Workspace) -> dict[str, float]:
    """The model and its peers on the very same bytes; the peers learn from the text that the model learned from."""
    from sluice.model.evaluation.baselines import NgramModel, xz_bits_per_byte
    from sluice.model.evaluation.held_out import read_held_out

    evaluate, split = load_block(workspace, EvaluateConfig), load_block(workspace, PackConfig)
    held_out = read_held_out(workspace.artifact("refine"), split)
    texts = [text for _, text in held_out.scored(evaluate)]
    bits = {"sluice": read_metrics(workspace, "evaluate")["bits_per_byte"]}
    for order in ORDERS:
        bits[f"{order + 1}-gram"] = NgramModel.train(held_out.train, order).bits_per_byte(texts)
    return {**bits, "xz -9": xz_bits_per_byte(texts)}


def tables(evaluate: Record, pretrain: Record, first: Record, second: Record, bits: dict[str, float]) -> dict[str, str]:
    """The tables of docs/benchmarks.md but "machine" and "tests"."""
    steps: list[tuple[str, ...]] = []
    for name, full, again in zip(STEPS, first["steps"], second["steps"], strict=True):
        repeated = "cached" if again["cached"] else f"{again['seconds']:.1f}"
        steps.append((name, f"{full['seconds']:.1f}", f"{full['work_seconds']:.1f}", repeated))
    seconds = (first["seconds"], first["work_seconds"], second["seconds"])
    steps.append(("**all**", *(f"**{each:.0f}**" for each in seconds)))
    steps.append(("outside the steps' own work", f"{1 - first['work_seconds'] / first['seconds']:.0%}", "", ""))
    low, high = evaluate["bits_per_byte_low"], evaluate["bits_per_byte_high"]
    right, worst, best = (evaluate[f"choice_accuracy{suffix}"] for suffix in ("", "_low", "_high"))
    items = f"n={evaluate['choice_items']}, chance {evaluate['choice_chance']:.2f}"
    model = [
        ("parameters", f"{pretrain['parameters']:,}"),
        ("tokens trained on", f"{pretrain['tokens']:,}"),
        ("tokens/s", f"{pretrain['timings']['tokens_per_second']:,.0f}"),
        ("held-out documents", f"{evaluate['documents']}"),
        ("bits per byte, interval", f"{bits['sluice']:.3f} [{low:.3f}, {high:.3f}]"),
        ("choice accuracy, interval", f"{right:.3f} [{worst:.3f}, {best:.3f}], {items}"),
    ]
    peers = [(name, f"{value:.3f}", f"{bits['sluice'] / value:.3f}") for name, value in bits.items()]
    return {
        "steps": markdown("step | >first run, s | >own work, s | >second run, s", steps),
        "model": markdown(" | ", model),
        "bits": markdown(" | >bits per byte | >model / peer", peers),
    }


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    """The top of a page, `width` x `height` pixels, as PNG; nothing where this machine has no browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        return
    # No sandbox of its own: it cannot have one as root in a container, and it opens a page that we have just written.
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}"]
    subprocess.run([browser, *flags, f"--screenshot={picture}", page.resolve().as_uri()], check=True, timeout=120)


def plot(bits: dict[str, float]) -> Figure:
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(bits), list(bits.values()), color=[OURS, *[THEIRS] * (len(bits) - 1)])
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("bits per byte of held-out text (lower is better)")
    axes.set_xlim(0, max(bits.values()) * 1.12)
    return figure


if __name__ == "__main__":
    main()
