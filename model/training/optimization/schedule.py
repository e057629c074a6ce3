"""Learning rate over the steps of a run: warm-up, then one of four ways down."""

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sluice.model.config import PretrainConfig

Schedule = Literal["wsd", "cosine", "linear", "inverse_sqrt"]


def learning_rate_scale(
    step: int,
    steps: int,
    *,
    warmup_steps: int,
    decay_fraction: float,
    last: float,
    schedule: Schedule = "wsd",
    decay_start: int | None = None,
) -> float:
    """Factor of the peak learning rate at `step`, counted from 0, of a run of `steps`.

    Rises linearly over `warmup_steps`, then by `schedule`:

    - wsd: stays at 1, and falls linearly to `last` over the final `decay_fraction` of the steps, or from `decay_start`
      on: a branch that decays from a checkpoint of the plateau. A fraction of 1 is linear decay from the end of the
      warm-up on (Defazio et al., arXiv 2310.07831); a smaller one is warmup-stable-decay (Hu et al., arXiv 2404.06395).
    - cosine: half a cosine down to `last` at the last step (Loshchilov and Hutter, arXiv 1608.03983).
    - linear: a line down to `last` at the last step.
    - inverse_sqrt: sqrt(warm-up / step), never below `last` (Vaswani et al., arXiv 1706.03762).

    Only wsd reads `decay_fraction` and `decay_start`.
    """
    assert 0 <= step < steps, f"step {step} of {steps}"
    # A run shorter than its warm-up never leaves it: the decay would otherwise start before the peak is reached.
    warmup_steps = min(warmup_steps, steps - 1)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "wsd":
        if decay_start is None:
            decay_start = max(warmup_steps + 1, min(steps - 1, round(steps * (1 - decay_fraction))))
        elif not warmup_steps < decay_start < steps:
            raise ValueError(
                f"a decay from step {decay_start} must start after the {warmup_steps} steps of warm-up and before the "
                f"last of {steps} steps: set steps to those of the plateau and of the decay together"
            )
        return 1.0 if step < decay_start else 1 - (1 - last) * (step - decay_start + 1) / (steps - decay_start)
    if schedule == "inverse_sqrt":
        return max(last, math.sqrt((warmup_steps + 1) / (step + 1)))
    # From 0 at the peak, which is the step after the warm-up, to 1 at the last step.
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    fallen = progress if schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return 1 - (1 - last) * fallen


def rate(config: "PretrainConfig", step: int, *, decay_start: int | None = None) -> float:
    """`learning_rate_scale` by the settings of a run."""
    return learning_rate_scale(
        step,
        config.steps,
        warmup_steps=config.warmup_steps,
        decay_fraction=config.decay_fraction,
        last=config.min_learning_rate_ratio,
        schedule=config.schedule,
        decay_start=decay_start,
    )
