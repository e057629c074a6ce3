"""Extend a run by further steps: from a checkpoint up to which the longer run would have done the same."""

from collections.abc import Iterable

from sluice.model.config import PretrainConfig
from sluice.model.training.batches.sizes import Sizes
from sluice.model.training.optimization.schedule import rate


def shared_steps(before: PretrainConfig, after: PretrainConfig, context: int) -> int:
    """Steps from the first on that two runs, which differ in `steps` alone, have in common: with the same learning
    rates and sizes.

    All of the shorter run with a constant rate or inverse_sqrt, those of the plateau with wsd, and at most the warm-up
    with cosine and linear.
    """
    if before.decay_from is not None:
        return 0
    sizes = [Sizes(config, context) for config in (before, after)]
    for step in range(min(before.steps, after.steps)):
        ours, theirs = (
            (rate(config, step), each.rows_before(step), each.batch_size(step), each.sequence_length(step))
            for config, each in zip((before, after), sizes, strict=True)
        )
        if ours != theirs:
            return step
    return min(before.steps, after.steps)


def newest_shared(before: PretrainConfig, after: PretrainConfig, context: int, steps: Iterable[int]) -> int:
    """The newest of the checkpoints after `steps` that `after` can go on from.

    Raises ValueError if there is none, or if `after` is not longer.
    """
    if after.steps <= before.steps:
        raise ValueError(
            f"pretrain.steps={after.steps} does not extend the run, which has {before.steps} steps: name more, or "
            "train anew into another folder"
        )
    if before.steps <= before.warmup_steps:
        raise ValueError(
            f"pretrain.steps={after.steps} cannot extend this run: its {before.steps} steps end within its warm-up "
            f"(pretrain.warmup_steps={before.warmup_steps}), shortened to fit; train anew into another folder"
        )
    shared = shared_steps(before, after, context)
    has_plateau = shared > min(before.warmup_steps + 1, before.steps - 1)
    if (found := max((step for step in steps if has_plateau and step <= shared), default=None)) is None:
        raise ValueError(
            f"pretrain.steps={after.steps} cannot extend this run: with schedule {before.schedule} its steps from "
            f"{shared} on depend on their number, and no checkpoint of a plateau is kept; what can be extended are "
            "schedule inverse_sqrt, a constant rate (pretrain.min_learning_rate_ratio=1) and wsd with decay_fraction "
            "below 1 and a checkpoint on the plateau (pretrain.keep_every)"
        )
    return found
