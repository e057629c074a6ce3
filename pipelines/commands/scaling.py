"""`sluice scaling`: a ladder of small runs, the power law they follow, and what the next budget should buy."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sluice.components.workspace import Workspace
from sluice.pipelines.options import add_trial_options
from sluice.pipelines.train_request import Request, open_tokens, read_trial

if TYPE_CHECKING:
    from sluice.model.training.search.scaling import Run

RESULT, PICTURE = "scaling.json", "scaling.svg"
_RESAMPLES = 200
_CONFIDENCE = 0.9
_BEYOND = 10.0
"""The next budget, over that of the largest run, where none is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rungs", type=int, default=4, metavar="N", help="sizes, the model's the largest (default: 4)")
    parser.add_argument(
        "--lengths", type=int, default=3, metavar="N", help="lengths of each: all steps, half of them, .. (default: 3)"
    )
    parser.add_argument(
        "--budget", type=float, metavar="FLOPS", help="budget to size (default: 10 times the largest run's)"
    )
    add_trial_options(parser)


def run(arguments: argparse.Namespace) -> int:
    from sluice.model.training.search.scaling import advise, bootstrap, fit
    from sluice.model.training.search.scaling_picture import draw_scaling

    if arguments.budget is not None and not arguments.budget > 0:
        raise ValueError(f"--budget {arguments.budget} must be above 0 FLOPs")
    workspace, out = Workspace.find_or_default(), Path(arguments.out)
    request = read_trial(workspace, arguments.overrides)
    runs = _runs(workspace, request, out, arguments)
    law = fit(runs)
    laws = bootstrap(runs, law, _RESAMPLES, request.pretrain.seed)
    budget = arguments.budget or _BEYOND * max(each.flops for each in runs)
    advice = advise(runs, law, laws, budget, _CONFIDENCE)
    found = {
        "runs": [asdict(each) for each in runs],
        "law": asdict(law),
        "next": asdict(advice),
        "confidence": _CONFIDENCE,
    }
    (out / RESULT).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    draw_scaling(runs, law, laws, budget, out / PICTURE, confidence=_CONFIDENCE)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(
            f"loss = {law.irreducible:.3f} + {law.a:.3g} / N^{law.alpha:.3f} + {law.b:.3g} / D^{law.beta:.3f}   "
            f"({len(runs)} runs; N parameters without embedding, D tokens)"
        )
        print(
            f"next budget {advice.flops:.3g} FLOPs, {advice.beyond:.0f} times the largest run; {_CONFIDENCE:.0%} bands:"
        )
        for name, interval in (("parameters", advice.parameters), ("tokens", advice.tokens)):
            print(f"  {name:<10} {interval.value:>14,.0f}   {interval.low:,.0f} to {interval.high:,.0f}")
        print(f"  {'loss':<10} {advice.loss.value:>14.4f}   {advice.loss.low:.4f} to {advice.loss.high:.4f}")
        print(f"picture: {out / PICTURE}")
    return 0


def _runs(workspace: Workspace, request: Request, out: Path, arguments: argparse.Namespace) -> list["Run"]:
    """Every rung for a part, twice that, .. and all of the settings' steps; each with a schedule of its own."""
    from sluice.model.training.search.scaling import LEAST_POINTS, Run
    from sluice.model.training.search.shapes import ladder, shape_name
    from sluice.model.training.trial import run_trial

    rungs, config = ladder(request.model, arguments.rungs), request.pretrain
    lengths = sorted({max(1, config.steps >> halving) for halving in range(arguments.lengths)})
    if len(rungs) * len(lengths) < LEAST_POINTS:
        raise ValueError(
            f"{len(rungs)} sizes x {len(lengths)} lengths are fewer than the {LEAST_POINTS} runs that the law needs: "
            "raise --rungs, --lengths or model.hidden_size"
        )
    packed = open_tokens(workspace, request, out)
    out.mkdir(parents=True, exist_ok=True)
    runs = []
    for shape in rungs:
        for steps in lengths:
            short = config.model_copy(update={"steps": steps, "validate_every": steps})
            trial = run_trial(short, shape, packed)
            runs.append(Run(trial.parameters, trial.tokens, trial.validation_loss))
            if not arguments.json:
                print(
                    f"{shape_name(shape):<10} {trial.parameters:>12,} parameters {trial.tokens:>12,} tokens "
                    f"{trial.validation_loss:.4f} nats a token, {trial.seconds:.0f} s",
                    flush=True,
                )
    return runs
