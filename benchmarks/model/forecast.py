"""The planner's forecast of a step's time and memory beside real steps, for several models in fp32 and bf16.

`python -m benchmarks.model.forecast` prints the table and writes it into docs/plan.md; `--check` only prints it.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from benchmarks.markers import markdown
from benchmarks.report import ROOT, machine, print_or_write
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.step_forecast import ForecastCheck
from sluice.model.planner.step_measurement import check_forecast

VOCAB, CONTEXT, BATCH, MICRO_BATCH, THREADS, ROUNDS = 4096, 256, 16, 8, 1, 3

_SMALL: dict[str, Any] = {"hidden_size": 128, "layers": 4, "heads": 4, "kv_heads": 2}
_WIDE: dict[str, Any] = {"hidden_size": 256, "layers": 4, "heads": 8, "kv_heads": 4}
_GPT2: dict[str, Any] = yaml.safe_load((ROOT / "conf/model/gpt2-medium.yaml").read_text(encoding="utf-8"))["model"]
_MAMBA = {
    "hidden_size": 256,
    "layers": 4,
    "positions": "none",
    "pattern": ("state_space",),
    "state_space": {"state_size": 64, "head_size": 64},
}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "4 layers, width 128": (_SMALL, "adamw"),
    "6 layers, width 256": ({**_WIDE, "layers": 6}, "adamw"),
    "the same as a GPT-2": ({**_GPT2, **_WIDE, "layers": 6, "kv_heads": 8}, "adamw"),
    "windows of 64 in turn with all, width 256": ({**_WIDE, "window": 64, "pattern": ("window", "attention")}, "adamw"),
    "Mamba-2, 4 layers, width 256": (_MAMBA, "adamw"),
    "4 experts, 4 layers, width 256": ({**_WIDE, "mixture": {"experts": 4, "per_token": 2}}, "adamw"),
    "4 layers, width 128, Muon": (_SMALL, "muon"),
}


@dataclass(frozen=True)
class Row:
    """One model in one type, checked several times."""

    model: str
    dtype: str
    checks: list[ForecastCheck]

    def errors(self, name: str) -> list[float]:
        """Errors of `step`, `clock` or `memory`, one a round. ValueError where a round was not measured."""
        found = []
        for check in self.checks:
            if check.skipped:
                raise ValueError(f"{self.model}, {self.dtype} was not measured: {check.skipped}")
            found.append(getattr(check, f"{name}_error"))
        return found

    @property
    def middle(self) -> ForecastCheck:
        """The round of the median error of the step."""
        return sorted(self.checks, key=lambda check: check.step_error or 0.0)[len(self.checks) // 2]


def measure(model: str, dtype: str, rounds: int) -> Row:
    fields, optimizer = CASES[model]
    config = TransformerConfig.from_settings(ModelConfig.model_validate({**fields, "context": CONTEXT}), VOCAB)
    run = PretrainConfig.model_validate(
        {"dtype": dtype, "optimizer": optimizer, "batch_size": BATCH, "micro_batch_size": MICRO_BATCH, "workers": 1}
    )
    # The bounds of `sluice plan` keep a planner short; here the cases are known to be small.
    checks = [
        check_forecast(config, run, threads=THREADS, peak_flops_per_s=1e15, free_bytes=1 << 40) for _ in range(rounds)
    ]
    return Row(model, dtype, checks)


def tables(rows: Iterable[Row], rounds: int) -> dict[str, str]:
    """The tables of "The forecast for this machine" in docs/plan.md."""
    settings = [
        ("machine", f"{machine()}, {THREADS} thread"),
        ("batch", f"{BATCH} sequences of {CONTEXT} in micro-batches of {MICRO_BATCH}, vocabulary {VOCAB:,}"),
        ("rounds", str(rounds)),
    ]
    head = "model | type | >step, forecast | >measured | errors | by the clock | >memory, forecast | >measured | errors"
    return {
        "forecast-conditions": markdown("measured on | ", settings),
        "forecast": markdown(head, map(_cells, rows)),
    }


def _cells(row: Row) -> Iterator[str]:
    middle = row.middle
    assert middle.forecast is not None and middle.measured is not None
    yield from (row.model, row.dtype, f"{middle.forecast.step_s:.2f} s", f"{middle.measured.step_s:.2f} s")
    yield from (_span(row.errors("step")), _span(row.errors("clock")))
    yield from (f"{size / 2**20:.0f} MiB" for size in (middle.forecast.memory_bytes, middle.measured.memory_bytes))
    yield _span(row.errors("memory"))


def _span(errors: list[float]) -> str:
    low, middle, high = (f"{100 * each:+.0f} %" for each in (min(errors), statistics.median(errors), max(errors)))
    return middle if low == high else f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="print the table and leave docs/plan.md as it is")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default: {ROUNDS}")
    arguments = parser.parse_args()
    rows = []
    for model in CASES:
        for dtype in ("fp32", "bf16"):
            print(f"{model}, {dtype} .. (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
            rows.append(measure(model, dtype, arguments.rounds))
    print_or_write("plan.md", tables(rows, arguments.rounds), is_check=arguments.check)


if __name__ == "__main__":
    main()
