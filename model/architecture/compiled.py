"""A step of decoding as one compiled graph: no time between its operations, and weights read as fast as memory allows.

The graph is that of the layers themselves. Its sizes are those of the whole cache instead of what it holds so far, so
that it is the same from token to token; what is not there yet is masked.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import Visibility, between
from sluice.model.architecture.cache import Cache, CacheStep
from sluice.model.architecture.cache_stores import Rows
from sluice.model.architecture.linear_backends import summed
from sluice.model.architecture.transformer import Transformer

SMALLEST = 64
"""Tokens of the shortest cache: its lengths are powers of two from here, so that most texts need the first graph."""


class Compiled:
    """Decodes with one model. Its first step takes the compiler half a minute, and so does the first over a cache of
    another length: that second graph serves all lengths.

    Raises ValueError for a mixture, whose routing no graph can hold, and on a CPU without a C++ compiler.
    """

    def __init__(self, model: Transformer, backend: str | Callable[..., Any] = "inductor") -> None:
        if model.config.mixture is not None:
            raise ValueError("a mixture of experts is routed token by token, which no graph holds: decode without")
        if backend == "inductor" and model.embedding.weight.device.type == "cpu":
            _check_compiler()
        self.model = model
        # What is left of a graph that breaks is slower than none: an error instead.
        self._step = torch.compile(_step, fullgraph=True, backend=backend)

    def capacity(self, length: int) -> int:
        """Tokens of the cache for a text of up to `length`."""
        return min(self.model.config.context, max(SMALLEST, 1 << (length - 1).bit_length()))

    def logits(self, cache: Cache, ids: Tensor) -> Tensor:
        """[slots, vocab] after the next tokens [slots, 1] of all of the cache's slots, which keeps them."""
        opened = cache.begin(len(ids), 1)
        logits = self._step(self.model, cache, ids, opened.positions.contiguous())
        opened.commit()
        return logits


def _check_compiler() -> None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise ValueError("compiling needs a C++ compiler, and none was found: install g++ or name one in CXX") from None


def _step(model: Transformer, cache: Cache, ids: Tensor, positions: Tensor) -> Tensor:
    slots, starts = torch.arange(len(ids), device=ids.device), positions[:, 0]
    # No common start: what the rows hold is known to tensors alone.
    rows = Rows(slots, slice(0, len(ids)), starts, torch.ones_like(starts), positions, None, cache.max_length)
    hidden = model.advance(ids, _WholeStep(cache, slots, rows), summed)
    return model.logits(hidden[:, -1], summed)


class _WholeStep(CacheStep):
    """A step that asks for no value: everything the cache has room for, and a mask."""

    @property
    def counts(self) -> Tensor | None:
        return None

    @property
    def _source_length(self) -> int:
        return self.cache.source_length

    @property
    def _source_visibility(self) -> Visibility:
        mask = self.cache.source_mask[self.rows.index]
        return between(self.rows.seq, mask.shape[1], mask, mask.device)
