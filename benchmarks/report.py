"""Shared by the benchmarks: the machine, figures and their bounds, timed sections, and the pages they write."""

import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from benchmarks.markers import markdown, replace_tables
from sluice.core.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Key = TypeVar("Key")
Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OURS, THEIRS, BOUND = "#2f6fde", "#9fb3c8", "#c0392b"
"""Colours of the plots: sluice, a peer, a bound."""


def machine() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def libraries(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def resident_bytes(*, peak: bool = False) -> int:
    """Resident memory of this process now, or its peak.

    `ru_maxrss` would begin with the memory of the process that forked this one.
    """
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def device_peak_bytes(device: str) -> int:
    """Largest memory of this process: allocated on a GPU, or resident."""
    if device != "cuda":
        return resident_bytes(peak=True)
    import torch

    return torch.cuda.max_memory_allocated()


def down(value: float, digits: int) -> float:
    return math.floor(value * 10**digits) / 10**digits if math.isfinite(value) else value


def up(value: float, digits: int) -> float:
    """`value` rounded up; NaN stays NaN."""
    return 0.0 - down(-value, digits)


@dataclass(frozen=True)
class Bound:
    """A figure and the bound it has to meet. Figures are rounded against us."""

    name: str
    value: float
    bound: float
    unit: str = ""
    at_least: bool = True
    digits: int = 2
    is_judged: bool = True
    """False for a figure measured on a busy machine: it is shown, and is no pass."""

    @property
    def is_met(self) -> bool:
        # NaN compares false: a figure that was not measured is not met.
        return self.is_judged and (self.value >= self.bound if self.at_least else self.value <= self.bound)

    @property
    def shown(self) -> str:
        if math.isnan(self.value):
            return "none"
        if not self.at_least and 0 < self.value < 10**-self.digits:
            exponent = math.floor(math.log10(self.value))
            return f"{up(self.value * 10.0**-exponent, 1):.1f}e{exponent:03d}{self.unit}"
        return f"{(down if self.at_least else up)(self.value, self.digits):.{self.digits}f}{self.unit}"

    @property
    def verdict(self) -> str:
        if not self.is_judged:
            return "**not judged**: a busy machine"
        return "met" if self.is_met else "**not measured**" if math.isnan(self.value) else "**not met**"


def bounds_table(bounds: Iterable[Bound]) -> str:
    held = list(bounds)
    rows = [
        (each.name, each.shown, f"{'≥' if each.at_least else '≤'} {each.bound:g}{each.unit}", each.verdict)
        for each in held
    ]
    met = sum(each.is_met for each in held)
    return f"{markdown('|>measured|>bound|', rows)}\n\n{met} of {len(held)} are met."


class OnGpu(BaseModel):
    device: str
    peak_flops: float | None
    """Dense bf16 FLOPs a second of its data sheet; None for a device that is not listed."""
    matmul_flops: float
    """FLOPs a second of the largest product measured."""
    refused: dict[str, str] = {}
    """Candidates that could not run, with the reason."""

    def tables(self, head: str, rows: Iterable[Iterable[str]], *, device: str, digits: int = 0) -> str:
        """Conditions, `rows`, and what could not run."""
        conditions = [
            ("device", device),
            (
                "dense bf16 by its data sheet",
                f"{self.peak_flops / 1e12:.0f} TFLOP/s" if self.peak_flops else "not listed",
            ),
            ("largest matrix product, bf16", f"{self.matmul_flops / 1e12:.{digits}f} TFLOP/s"),
        ]
        refused = f"\n\n{markdown('could not run | reason', self.refused.items())}" if self.refused else ""
        return f"{markdown('measured on|', conditions)}\n\n{markdown(head, rows)}{refused}"


class Timed(BaseModel):
    """Results of a benchmark, with the load and the time of each of its sections."""

    loads: dict[str, float] = {}
    """Load average of the minute before each section, the benchmark's own work included."""
    seconds: dict[str, float] = {}

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self.loads[name] = os.getloadavg()[0]
        print(f"{name} ..", file=sys.stderr, flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def conditions(self) -> list[tuple[str, str]]:
        """Rows of the table that says how the figures were taken."""
        loads = ", ".join(f"{name} {load:.1f}" for name, load in self.loads.items())
        return [("load average before", loads), ("minutes in all", f"{sum(self.seconds.values()) / 60:.0f}")]


def run_in_turns(works: Mapping[Key, Callable[[], Result]], rounds: int) -> dict[Key, list[Result]]:
    """Results of `rounds` rounds of every work, in turns, so that a busy minute hits all alike."""
    found: dict[Key, list[Result]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            found[key].append(work())
    return found


def keep(path: Path, results: BaseModel) -> None:
    """Write `results`, from which `--again` writes the page without measuring."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")


def write_page(folder: Path, name: str, tables: Mapping[str, str]) -> None:
    """Replace the tables of docs/NAME, or of a copy of it in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.resolve() != DOCS:
        shutil.copy(DOCS / name, folder / name)
    replace_tables(folder / name, tables)


def print_or_write(name: str, tables: Mapping[str, str], *, is_check: bool) -> None:
    """Print the tables, and write them into docs/NAME unless this is a check."""
    print(*tables.values(), sep="\n\n")
    if not is_check:
        write_page(DOCS, name, tables)


def save_figures(folder: Path, figures: Mapping[str, "Figure"]) -> None:
    """Write SVGs by name; equal results give equal bytes."""
    import matplotlib as mpl

    mpl.rcParams["svg.hashsalt"] = "sluice"
    for name, figure in figures.items():
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / name, format="svg", metadata={"Date": None})


def rate_bars(axes: "Axes", rates: Mapping[str, float], line: float | None) -> None:
    """Horizontal bars of tokens a second by name, ours in our colour, and a line to compare with."""
    colors = [OURS if name.startswith("sluice") else THEIRS for name in rates]
    axes.bar_label(axes.barh(list(rates), list(rates.values()), color=colors), fmt="{:,.0f}", padding=3, fontsize=8)
    if line is not None:
        axes.axvline(line, color=BOUND, lw=1.5)
    axes.invert_yaxis()
    axes.set_xlim(0, max(rates.values()) * 1.2)


def grouped_bars(axes: "Axes", series: Mapping[str, list[float]], form: str, **settings: Any) -> None:
    """Bars of two series side by side, ours first."""
    for shift, color, (label, values) in zip((-0.19, 0.19), (OURS, THEIRS), series.items(), strict=True):
        bars = axes.bar([place + shift for place in range(len(values))], values, 0.36, color=color, label=label)
        axes.bar_label(bars, fmt=form, padding=3, fontsize=9, **settings)
