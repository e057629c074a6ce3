"""`sluice sweep`: which learning rate and shape are best, by many short runs of which the worse end early."""

import argparse
import json
import math
from pathlib import Path

from sluice.components.ray_head import prepare_own_ray
from sluice.components.workspace import Workspace
from sluice.model.parallelism.optimizers import OPTIMIZERS
from sluice.pipelines.options import add_trial_options
from sluice.pipelines.train_request import open_tokens, read_trial

RESULT = "sweep.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=9, metavar="N", help="runs started (default: 9)")
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="runs at a time (default: one per core); with 1 the same ones end early every time",
    )
    add_trial_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.at_once is not None and arguments.at_once < 1:
        raise ValueError(f"--at-once {arguments.at_once} must be at least 1")
    prepare_own_ray()
    from sluice.model.training.errors import TrainingInterrupted
    from sluice.model.training.search.shapes import shape_name
    from sluice.model.training.search.sweep import best, candidates, run_sweep

    workspace, out = Workspace.find_or_default(), Path(arguments.out)
    request = read_trial(workspace, arguments.overrides)
    tried = candidates(request.pretrain, request.model, arguments.trials, request.pretrain.seed)
    packed = open_tokens(workspace, request, out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        ended = run_sweep(tried, packed, out / "ray", at_once=arguments.at_once)
    except TrainingInterrupted as interrupted:
        raise KeyboardInterrupt(str(interrupted)) from None
    outcomes = sorted(ended, key=lambda each: (-each.step, each.validation_loss))
    first = best(outcomes)
    config, model = first.candidate.config, first.candidate.model
    chosen = {f"model.{name}": getattr(model, name) for name in ("hidden_size", "layers", "heads", "kv_heads")}
    chosen |= {f"pretrain.{name}": getattr(config, name) for name in OPTIMIZERS[config.optimizer].learning_rates}
    rows = [
        {
            "shape": shape_name(each.candidate.model),
            "rate": each.candidate.rate,
            "step": each.step,
            # JSON has no infinity.
            "validation_loss": each.validation_loss if math.isfinite(each.validation_loss) else None,
        }
        for each in outcomes
    ]
    found = {"trials": rows, "steps": request.pretrain.steps, "best": {**rows[outcomes.index(first)], "set": chosen}}
    (out / RESULT).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(found))
        return 0
    print("shape        rate x   steps   held out")
    for row in rows:
        loss = row["validation_loss"]
        held = "diverged" if loss is None else f"{loss:.4f}"
        print(f"{row['shape']:<12} {row['rate']:>6.2f} {row['step']:>7,} {held:>10}")
    print("best: " + " ".join(f"{name}={value:.6g}" for name, value in chosen.items()))
    return 0
