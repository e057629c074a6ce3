"""Learning rate over the steps of a run: warm-up, plateau, linear decay."""


def learning_rate_scale(step: int, steps: int, *, warmup_steps: int, decay_fraction: float, last: float) -> float:
    """What the peak learning rate is multiplied by at `step`, counted from 0, of a run of `steps`.

    Rises linearly over `warmup_steps`, stays at 1, and falls linearly to `last` over the final `decay_fraction` of the
    steps. A fraction of 1 is linear decay from the end of the warm-up on (Defazio et al., arXiv 2310.07831); a smaller
    one is warmup-stable-decay (Hu et al., arXiv 2404.06395).
    """
    assert 0 <= step < steps, f"step {step} of {steps}"
    # A run shorter than its warm-up never leaves it: the decay would otherwise start before the peak is reached.
    warmup_steps = min(warmup_steps, steps - 1)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    decay_start = max(warmup_steps + 1, min(steps - 1, round(steps * (1 - decay_fraction))))
    if step < decay_start:
        return 1.0
    return 1 - (1 - last) * (step - decay_start + 1) / (steps - decay_start)
