"""Search over learning rates and shapes by short runs, the worse of which stop early (ASHA, Li et al., arXiv
1810.05934), under Ray Tune.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.optimizers import OPTIMIZERS
from sluice.model.training.batches.text import Packed
from sluice.model.training.launch import joined_ray, run_in_thread
from sluice.model.training.search.shapes import alternatives, shape_name

RATE_RANGE = 4.0
"""Learning rates lie between a fourth of the settings' and four times it."""
_REDUCTION = 2
_DIVERGED = 1e9
"""Reported to ASHA for a trial without a finite loss: an infinity would make its medians NaN, which stop nothing."""


@dataclass(frozen=True)
class Candidate:
    """Settings of one trial."""

    model: ModelConfig
    config: PretrainConfig
    rate: float
    """Factor of the settings' learning rates."""

    @property
    def name(self) -> str:
        return f"{shape_name(self.model)}, rate x {self.rate:.2f}"


@dataclass(frozen=True)
class TrialOutcome:
    """Result of a trial."""

    candidate: Candidate
    validation_loss: float
    """The last that was measured; infinite where the trial diverged."""
    step: int
    """Step of that measurement; below the run's steps where it was stopped early."""


def candidates(config: PretrainConfig, model: ModelConfig, trials: int, seed: int) -> list[Candidate]:
    """`trials` candidates: shapes in turn, for each of them learning rates spread evenly in their logarithm.

    The first is the settings' own. Equal arguments give equal candidates.
    """
    if trials < 2:
        raise ValueError(f"{trials} trials compare nothing: take at least 2")
    shapes = alternatives(model)
    generator = np.random.default_rng(seed)
    per_shape = -(-trials // len(shapes))
    found = []
    for number in range(trials):
        turn, shape = divmod(number, len(shapes))
        # One draw in each of as many equal parts of the range as a shape has trials.
        place = (turn + float(generator.random())) / per_shape
        rate = 1.0 if number == 0 else math.exp((2 * place - 1) * math.log(RATE_RANGE))
        rates = OPTIMIZERS[config.optimizer].learning_rates
        changed = {name: getattr(config, name) * rate for name in rates}
        found.append(Candidate(shapes[shape], config.model_copy(update=changed), rate))
    return found


def best(outcomes: Sequence[TrialOutcome]) -> TrialOutcome:
    """The least loss of those that ran to the end. ValueError where none did."""
    last = max(outcome.step for outcome in outcomes)
    finished = [outcome for outcome in outcomes if outcome.step == last and math.isfinite(outcome.validation_loss)]
    if not finished:
        raise ValueError("no trial ended with a finite loss: lower pretrain.learning_rate")
    return min(finished, key=lambda outcome: outcome.validation_loss)


def run_sweep(
    tried: Sequence[Candidate], packed: Packed, state: Path, *, at_once: int | None = None
) -> list[TrialOutcome]:
    """All candidates under Ray Tune, a core each; Ray's own files go below `state`.

    Which of them end early depends on which come first, unless `at_once` (None: as many as there are cores) is 1: then
    they run in their order, and the same ones end. A cluster is used where RAY_ADDRESS names one, else one is started
    for the sweep. Raises RuntimeError naming the candidate that failed.
    """
    with joined_ray(log=state / "ray.log"):
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        config = tried[0].config
        plain = [
            {
                "model": each.model.model_dump(mode="json"),
                "config": each.config.model_dump(mode="json"),
                "rate": each.rate,
            }
            for each in tried
        ]
        space = {
            "candidate": tune.grid_search(plain),
            "packed": [str(folder.resolve()) for folder in packed],
        }
        scheduler = ASHAScheduler(
            time_attr="step", max_t=config.steps, grace_period=config.validate_every, reduction_factor=_REDUCTION
        )
        tuner = tune.Tuner(
            tune.with_resources(_trial, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="validation_loss",
                mode="min",
                scheduler=scheduler,
                max_concurrent_trials=at_once,
            ),
            run_config=tune.RunConfig(name="sweep", storage_path=str(state.resolve()), verbose=0),
        )
        results = run_in_thread(tuner.fit)
        return [_outcome(tried, results[place]) for place in range(len(results))]


def _read(plain: dict[str, Any]) -> Candidate:
    return Candidate(
        ModelConfig.model_validate(plain["model"]), PretrainConfig.model_validate(plain["config"]), plain["rate"]
    )


def _trial(settings: dict[str, Any]) -> None:
    """Runs in a process of Ray Tune."""
    from ray import tune

    from sluice.model.training.errors import TrainingFailed
    from sluice.model.training.trial import run_trial

    candidate = _read(settings["candidate"])

    def report(step: int, loss: float) -> None:
        tune.report({"step": step, "validation_loss": loss})

    try:
        run_trial(candidate.config, candidate.model, Packed(*map(Path, settings["packed"])), report=report)
    except TrainingFailed:
        # A rate that is too high is a result of the sweep, not its failure.
        tune.report({"step": candidate.config.steps, "validation_loss": _DIVERGED})


def _outcome(tried: Sequence[Candidate], result: Any) -> TrialOutcome:
    candidate = _read(result.config["candidate"])
    assert candidate in tried
    if result.error is not None:
        # What the trial raised, without Ray's account of where.
        error = getattr(result.error, "cause", None) or result.error
        raise RuntimeError(f"trial {candidate.name}: {' '.join(str(error).split())[:300]}")
    if "validation_loss" not in result.metrics:
        raise RuntimeError(f"trial {candidate.name} ended before its first validation")
    loss = result.metrics["validation_loss"]
    return TrialOutcome(candidate, math.inf if loss >= _DIVERGED else loss, result.metrics["step"])
