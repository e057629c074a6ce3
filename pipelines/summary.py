"""The summary printed at the end of a run."""

from typing import Any

from sluice.components.artifact import read_metrics
from sluice.components.workspace import EFFECT_STEPS, STEPS, Workspace
from sluice.pipelines.status import status
from sluice.pipelines.terminal import clock


def print_summary(workspace: Workspace, record: dict[str, Any]) -> None:
    found = status(workspace)
    print()
    print_steps(record["steps"], found["metrics"])
    print(f"\n{clock(record['seconds'])} in all, of which {outside_share(record):.0%} outside the steps' own work")
    print(f"gate     {found['verdict']}: {read_metrics(workspace, 'gate')['reason']}")
    for step in ("rollout", "monitor"):
        result = read_metrics(workspace, step)
        print(f"{step:<8} {result['outcome']}: {result['reason']}")
    if not found["champion"]:
        print("nothing serves yet   next: fix what the gate reports, or sluice promote --force --reason ..")
    else:
        print(f"champion v{found['champion']}   next: sluice serve, sluice chat, sluice mlflow, sluice history")


def outside_share(record: dict[str, Any]) -> float:
    """Share of the wall time that no step's own work accounts for: orchestration, imports, starting Ray and workers."""
    return 1 - record["work_seconds"] / record["seconds"]


def print_steps(steps: list[dict[str, Any]], metrics: dict[str, dict[str, Any]]) -> None:
    """Print one line per step: its state, time and figures."""
    for number, step in enumerate(steps, 1):
        state = "cached" if step["cached"] else step["state"]
        seconds = "" if step["seconds"] is None else clock(step["seconds"])
        figures = describe_metrics(step["name"], metrics.get(step["name"], {})) if step["state"] == "done" else ""
        print(f"{number:>2}/{len(STEPS)} {step['name']:<10} {state:<11} {seconds:>12}   {figures}")


def describe_metrics(step: str, metrics: dict[str, Any]) -> str:
    """The main figures of a step; an absent one is left out."""
    if step in EFFECT_STEPS:
        return str(metrics.get("outcome", ""))
    if step == "evaluate":
        from sluice.model.evaluation.metrics import METRICS

        headlines = [name for metric in METRICS for name in metric.headline]
    else:
        headlines = list(HEADLINES[step])
    # One number of what a step counts by kind.
    totals = {name: sum(metrics[name].values()) for name in COUNTED_BY_KIND if name in metrics}
    totals |= {f"{side}_tokens": split["tokens"] for side, split in metrics.get("splits", {}).items()}
    flat = {**metrics, **totals}
    shown = []
    for name in headlines:
        if (value := flat.get(name)) is not None:
            digits = ",.4g" if isinstance(value, float) else "," if isinstance(value, int) else ""
            shown.append(f"{name.replace('_', ' ')} {value:{digits}}")
    return ", ".join(shown)


COUNTED_BY_KIND = ("rejects", "dropped", "masked")

HEADLINES: dict[str, tuple[str, ...]] = {
    "ingest": ("documents", "bytes", "rejects"),
    "refine": ("documents_kept", "bytes_kept", "dropped", "masked"),
    "tokenizer": ("vocab_size", "bytes_per_token", "round_trip"),
    "pack": ("train_tokens", "valid_tokens", "test_tokens"),
    "pretrain": ("parameters", "tokens", "final_loss", "validation_bits_per_byte"),
    "tune": ("pairs", "steps", "validation_loss_before", "validation_loss"),
}
