"""Which tokens a worker reads at a step: a pure function of (seed, step, rank), so a resumed run reads what an
undisturbed one would have read.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from sluice.data.packing import Loader, PackedTokens
from sluice.data.tokenization import load_tokenizer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.batches.objectives import Objective
from sluice.model.training.batches.sizes import Sizes


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
                "add text or lower model.context"
            )

    @property
    def windows(self) -> int:
        """Windows an epoch. Every phase has at least this many."""
        return (self.total_tokens - self.context) // self.context

    def starts(self, first: int, count: int) -> np.ndarray:
        """Offsets [count] int64 into the tokens of the visits `first` to `first + count`, over all epochs."""
        visits = np.arange(first, first + count)
        starts = []
        for epoch, visit in (divmod(int(each), self.windows) for each in visits):
            phase, order = _epoch(self, epoch)
            starts.append(phase + int(order[visit]) * self.context)
        return np.array(starts, dtype=np.int64)


@lru_cache(maxsize=4)
def _epoch(order: WindowOrder, epoch: int) -> tuple[int, np.ndarray]:
    """Phase and permutation of one epoch."""
    generator = np.random.Generator(np.random.PCG64([order.seed, epoch]))
    return int(generator.integers(order.context)), generator.permutation(order.windows)


class TrainingBatches:
    """One worker's batches: windows of the text as it runs on, or rows as best_fit packed them.

    Raises ValueError where the run would read the training text more often than `config.max_epochs`.
    """

    def __init__(
        self,
        packed: PackedTokens,
        config: PretrainConfig,
        context: int,
        *,
        special: Collection[int] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`special` are the tokenizer's special tokens, which objective masked does not mask; see `special_tokens`."""
        assert config.batch_size % world == 0, f"batch of {config.batch_size} sequences over {world} workers"
        self.packed, self.context, self.rank, self.world = packed, context, rank, world
        self.sizes = Sizes(config, context)
        self.objective = Objective.of(config, packed.vocab_size, packed.eos_id, special)
        self._order = _order(packed, context, config.seed)
        self.epochs = self.sizes.rows_before(config.steps) / self._order.windows
        """Times that the run reads the training text."""
        if config.max_epochs is not None and self.epochs > config.max_epochs:
            raise ValueError(
                f"{config.steps} steps read {self.epochs:.2f} epochs of the training text, more than "
                f"pretrain.max_epochs {config.max_epochs:g}: lower steps or batch_size, add documents, or raise "
                "max_epochs"
            )

    def read(self, step: int) -> Batch:
        """This worker's share of `step`, counted from 0."""
        share = self.sizes.batch_size(step) // self.world
        first = self.sizes.rows_before(step) + self.rank * share
        return read_rows(
            self.packed,
            self.objective,
            self._order.starts(first, share),
            np.arange(first, first + share),
            self.context,
            self.sizes.sequence_length(step),
        )


class _RowOrder:
    """Order of packed rows, as sluice.data.packing.Loader has it."""

    def __init__(self, packed: PackedTokens, context: int, seed: int) -> None:
        self._loader = Loader(packed, context, seed=seed, batch=1)
        self.windows = self._loader.rows
        self.starts = self._loader.starts


def _order(packed: PackedTokens, context: int, seed: int) -> WindowOrder | _RowOrder:
    if packed.row_tokens is not None:
        return _RowOrder(packed, context, seed)
    return WindowOrder(len(packed.tokens), context, seed)


def validation_batches(
    packed: PackedTokens, objective: Objective, context: int, *, windows: int, rows: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Batches of at most `rows` rows, in all at most `windows` spread over the held-out text, each worker its share.

    The same at every call, corruption included. Targets have sources where `source_names` is not empty.
    Every worker has the same number of batches, since ZeRO 3 gathers weights collectively: a worker with fewer windows
    ends with one whose targets do not count.
    """
    starts = validation_starts(len(packed.tokens), context, windows)
    numbers = np.arange(len(starts))
    own, most = numbers[rank::world], -(-len(starts) // world)
    for first in range(0, most, rows):
        some = own[first : first + rows]
        shown = some if len(some) else numbers[:1]
        batch = read_rows(packed, objective, starts[shown], shown, context, context)
        if source_names(packed, objective):
            sources = np.stack([packed.source_ids(int(start), context + 1) for start in starts[shown]])
            batch = replace(batch, origins=objective.of_targets(sources))
        yield batch if len(some) else replace(batch, mask=torch.zeros_like(batch.targets, dtype=torch.bool))


def source_names(packed: PackedTokens, objective: Objective) -> list[str]:
    """Sources by which the held-out loss is reported, in the order of their numbers: none where there is one source or
    they are unknown, and none for corrupted spans, whose targets include sentinels.
    """
    return list(packed.sources) if len(packed.sources) > 1 and objective.name != "span" else []


def read_rows(  # noqa: PLR0917
    packed: PackedTokens, objective: Objective, starts: np.ndarray, numbers: np.ndarray, context: int, length: int
) -> Batch:
    """Rows of `context` tokens that begin at `starts` [rows], numbered `numbers` [rows], in sequences of `length`."""
    tokens = np.stack([packed.sequence.read(int(start), context + 1) for start in starts]).astype(np.int64)
    documents = None
    if objective.isolate or packed.row_tokens is not None:
        documents = np.stack([packed.document_ids(int(start), context + 1) for start in starts])
    return objective.batch(tokens, documents, numbers, length)


def special_tokens(tokenizer: Path) -> frozenset[int]:
    """Ids of the special tokens of the tokenizer in this folder."""
    added = load_tokenizer(tokenizer).get_added_tokens_decoder()
    return frozenset(identity for identity, token in added.items() if token.special)


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
