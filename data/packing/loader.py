"""Load rows of a packed split in an order that is a function of (seed, epoch), from a position that can be saved.

The position counts rows over all workers, so a run resumes exactly where it stopped, even with another number of
workers or another batch size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sluice.data.packing.order import keyed, permuted
from sluice.data.packing.report import Layout
from sluice.data.packing.shards import PADDING, PackedTokens

IGNORED = -100
"""Target that the loss ignores; the default of torch's cross entropy."""


class LoaderState(BaseModel):
    """Position of a loader: `sample`, and fields that identify the sequence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample: int = Field(ge=0)
    """Rows read so far, over all workers and epochs."""
    seed: int
    context: int
    layout: Layout
    tokens: int
    """Tokens of the split, padding included."""


@dataclass(frozen=True)
class PackedRows:
    """Rows of one worker for one step; both arrays are [rows, context + 1] int64."""

    tokens: np.ndarray
    documents: np.ndarray
    """Document of each token, PADDING where there is none. With isolated attention, a token sees the tokens of its row
    with the same number."""

    @property
    def ids(self) -> np.ndarray:
        """[rows, context]"""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> np.ndarray:
        """The next token of the same document, [rows, context]; IGNORED before another document or padding."""
        same = (self.documents[:, 1:] == self.documents[:, :-1]) & (self.documents[:, 1:] != PADDING)
        return np.where(same, self.tokens[:, 1:], IGNORED)


class Loader:
    """Endless batches for one of `world` workers. A step reads the next `batch` rows, `batch / world` a worker.

    best_fit: the rows as packed; `context` is row_tokens - 1. Concatenated: windows of `context + 1` tokens that share
    their border token, cut at another phase each epoch, so that no token is always first. Each epoch reads every row
    once.
    """

    def __init__(
        self,
        packed: PackedTokens,
        context: int,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        world: int = 1,
        state: LoaderState | None = None,
    ) -> None:
        if batch < 1 or batch % world:
            raise ValueError(f"a batch of {batch} rows over {world} workers: make it a multiple of the workers")
        assert 0 <= rank < world, f"rank {rank} of {world}"
        if packed.row_tokens is not None and packed.row_tokens != context + 1:
            raise ValueError(
                f"context {context} does not fit rows of {packed.row_tokens} tokens: "
                f"set pack.row_tokens to {context + 1} and pack again"
            )
        total = len(packed.sequence)
        self.rows = (total - context) // context if packed.row_tokens is None else total // packed.row_tokens
        """Rows per epoch; a concatenated split has at least this many at every phase."""
        if self.rows < 1:
            raise ValueError(f"{total} {packed.split} tokens are too few for one row of {context}: add documents")
        self.packed, self.context, self.seed = packed, context, seed
        self.share, self.rank, self.batch = batch // world, rank, batch
        self._sample = 0
        if state is not None:
            own = self.state.model_dump(exclude={"sample"})
            for name, value in state.model_dump(exclude={"sample"}).items():
                if value != own[name]:
                    raise ValueError(
                        f"the saved position is of a sequence with {name} {value}, this one has {own[name]}: "
                        "resume with the same data and settings, or start at sample 0"
                    )
            self._sample = state.sample

    @property
    def state(self) -> LoaderState:
        """Position after the last batch, the same on every worker."""
        return LoaderState(
            sample=self._sample,
            seed=self.seed,
            context=self.context,
            layout=self.packed.layout,
            tokens=len(self.packed.sequence),
        )

    def __iter__(self) -> Iterator[PackedRows]:
        return self

    def __next__(self) -> PackedRows:
        starts = self.starts(self._sample + self.rank * self.share, self.share)
        length = self.context + 1
        tokens = np.stack([self.packed.sequence.read(int(start), length) for start in starts])
        documents = np.stack([self.packed.document_ids(int(start), length) for start in starts])
        self._sample += self.batch
        return PackedRows(tokens.astype(np.int64), documents)

    def starts(self, first: int, count: int) -> np.ndarray:
        """Return the first token of rows `first` to `first + count`, counted over all epochs, [count] int64."""
        visits = np.arange(first, first + count)
        starts = np.empty(count, dtype=np.int64)
        for epoch in range(first // self.rows, (first + count - 1) // self.rows + 1):
            inside = visits // self.rows == epoch
            rows = permuted(visits[inside] - epoch * self.rows, self.rows, self.seed, epoch)
            if self.packed.row_tokens is not None:
                starts[inside] = rows * self.packed.row_tokens
            else:
                phase = int(keyed(np.zeros(1, dtype=np.uint64), "phase", self.seed, epoch)[0]) % self.context
                starts[inside] = phase + rows * self.context
        return starts
