"""Which tokens a worker reads at a step: a pure function of (seed, step, rank), so a resumed run reads what an
undisturbed one would have read.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from data.packing import TokenSequence


@dataclass(frozen=True)
class WindowOrder:
    """Order in which the windows of a token sequence are visited.

    Each epoch reads every window of `context + 1` tokens once, in an order of its own. Windows share their border token
    (the last target of one is the first input of the next), and each epoch cuts the sequence at another phase, so that
    no token is always at the start of a window.
    """

    total_tokens: int
    context: int
    """Tokens a window is trained on."""
    seed: int

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise ValueError(
                f"{self.total_tokens} training tokens are too few for windows of {self.context} tokens: "
                "add documents or lower model.context"
            )

    @property
    def windows(self) -> int:
        """Windows an epoch. Every phase has at least this many."""
        return (self.total_tokens - self.context) // self.context

    def starts(self, first: int, count: int) -> np.ndarray:
        """Offsets [count] int64 into the tokens of the visits `first` to `first + count`, over all epochs."""
        visits = np.arange(first, first + count)
        return np.array([self._start(*divmod(int(visit), self.windows)) for visit in visits], dtype=np.int64)

    def _start(self, epoch: int, visit: int) -> int:
        phase, order = _epoch(self, epoch)
        return phase + int(order[visit]) * self.context


@lru_cache(maxsize=4)
def _epoch(order: WindowOrder, epoch: int) -> tuple[int, np.ndarray]:
    """Phase and permutation of one epoch."""
    generator = np.random.Generator(np.random.PCG64([order.seed, epoch]))
    return int(generator.integers(order.context)), generator.permutation(order.windows)


class TrainingBatches:
    """Batches of one worker."""

    def __init__(
        self, tokens: TokenSequence, context: int, seed: int, *, batch_size: int, rank: int, world: int
    ) -> None:
        assert batch_size % world == 0, f"batch of {batch_size} sequences over {world} workers"
        self.tokens, self.batch_size, self.rank = tokens, batch_size, rank
        self.order = WindowOrder(len(tokens), context, seed)
        self.share = batch_size // world

    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """Ids and their next tokens, both [batch_size / world, context] int64, of `step`, counted from 0."""
        starts = self.order.starts(step * self.batch_size + self.rank * self.share, self.share)
        return read_windows(self.tokens, starts, self.order.context)


def read_windows(tokens: TokenSequence, starts: np.ndarray, context: int) -> tuple[Tensor, Tensor]:
    """Ids and targets [len(starts), context] int64 of the windows at `starts`."""
    rows = torch.from_numpy(np.stack([tokens.read(int(start), context + 1) for start in starts]).astype(np.int64))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def validation_starts(total_tokens: int, context: int, limit: int) -> np.ndarray:
    """Offsets [at most `limit`] of windows spread evenly over the validation tokens; without overlap."""
    windows = (total_tokens - 1) // context
    if windows < 1:
        raise ValueError(
            f"{total_tokens} validation tokens are too few for one window of {context}: raise pack.valid_fraction or "
            "lower model.context"
        )
    count = min(limit, windows)
    return np.arange(count) * windows // count * context
