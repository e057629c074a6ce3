"""How many sequences a step has, and how long they are: known for every step before the first one."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.model.config import PretrainConfig, SizeSchedule


@dataclass(frozen=True)
class Stages:
    """A size that changes at given steps."""

    first: tuple[int, ...]
    """[stages] ascending, from 0: the step from which each size holds."""
    size: tuple[int, ...]
    """[stages]"""

    def at(self, step: int) -> int:
        return self.size[bisect_right(self.first, step) - 1]

    def before(self, step: int) -> int:
        """Sum of the sizes of the steps 0 to `step`, that one not included."""
        ends = (*self.first[1:], step)
        return sum(
            size * max(0, min(end, step) - first) for first, end, size in zip(self.first, ends, self.size, strict=True)
        )


def growing(schedule: SizeSchedule | None, full: int, allowed: Sequence[int], steps: int) -> Stages:
    """Sizes from `schedule.start` to `full` by equal factors, each the largest of `allowed` (ascending) below it.

    `full` holds from `schedule.fraction` of the `steps` on; the others share the steps before evenly.
    """
    if schedule is None:
        return Stages((0,), (full,))
    factor = (full / schedule.start) ** (1 / (schedule.stages - 1))
    # Rounding may put an exact size just below itself.
    wanted = [schedule.start * factor**stage * (1 + 1e-9) for stage in range(schedule.stages - 1)]
    sizes = [*(max(size for size in allowed if size <= wish) for wish in wanted), full]
    firsts = [round(schedule.fraction * steps * stage / (schedule.stages - 1)) for stage in range(schedule.stages)]
    # Of two sizes that begin at the same step the later one applies.
    begun = dict(zip(firsts, sizes, strict=True))
    return Stages(tuple(begun), tuple(begun.values()))


class Sizes:
    """Rows, sequences and tokens of each step of a run, over all its workers.

    A row has `context` tokens, and a batch so many rows that a short sequence length cuts into more sequences: it
    changes what a token sees (SkyLadder, arXiv 2503.15450), not the tokens of a step. Steps count from 0.
    """

    def __init__(self, config: PretrainConfig, context: int) -> None:
        self.context = context
        replicas = config.copies
        unit = replicas * config.micro_batch_size
        batches = range(unit, config.batch_size + 1, unit)
        lengths = [length for length in range(1, context + 1) if context % length == 0]
        _check("batch_schedule", config.batch_schedule, config.batch_size, batches, f"multiples of {unit}")
        _check("sequence_schedule", config.sequence_schedule, context, lengths, f"divisors of the context {context}")
        self._batches = growing(config.batch_schedule, config.batch_size, batches, config.steps)
        self._lengths = growing(config.sequence_schedule, context, lengths, config.steps)

    @property
    def stages(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """First steps and sizes of the batches, then of the sequences."""
        return [(each.first, each.size) for each in (self._batches, self._lengths)]

    def batch_size(self, step: int) -> int:
        """Rows of a step."""
        return self._batches.at(step)

    def sequence_length(self, step: int) -> int:
        """Tokens a sequence of a step."""
        return self._lengths.at(step)

    def rows_before(self, step: int) -> int:
        """Rows read in the steps before this one: where it starts in the data."""
        return self._batches.before(step)

    def tokens_before(self, step: int) -> int:
        """Tokens read in the steps before this one, those that no loss counts included."""
        return self.rows_before(step) * self.context


def _check(name: str, schedule: SizeSchedule | None, full: int, allowed: Sequence[int], described: str) -> None:
    if schedule is None or (schedule.start < full and schedule.start in allowed):
        return
    raise ValueError(f"{name}.start {schedule.start} must be one of the {described} below {full}, the size it grows to")
