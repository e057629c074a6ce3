"""Decoding with one compiled graph per step: no launch overhead, and weights read at memory bandwidth.

The graph is traced from the layers themselves. Its sizes are those of the whole cache, not of its current contents, so
that every step runs the same graph; positions not yet filled are masked.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.cache import Cache, CacheStep
from sluice.model.architecture.cache_stores import StepRows
from sluice.model.architecture.linear_backends import row_sum
from sluice.model.architecture.transformer import Transformer

SMALLEST = 64
"""Shortest cache in tokens: lengths are powers of two from here on, so that most texts use the first graph."""


class CompiledDecoder:
    """Decodes with one model. The first step compiles for half a minute, and so does the first over a cache of another
    length; that second graph serves all lengths.

    Raises ValueError for a mixture of experts, whose routing cannot be traced, and on a CPU without a C++ compiler.
    """

    def __init__(self, model: Transformer, backend: str | Callable[..., Any] = "inductor") -> None:
        if model.config.mixture is not None:
            raise ValueError("a mixture of experts is routed token by token, which no graph holds: decode without")
        if backend == "inductor" and model.embedding.weight.device.type == "cpu":
            from torch._inductor import cpp_builder, exc

            try:
                cpp_builder.get_cpp_compiler()
            except exc.InvalidCxxCompiler:
                message = "compiling needs a C++ compiler, and none was found: install g++ or name one in CXX"
                raise ValueError(message) from None
        self.model = model
        # A graph with breaks is slower than no graph: raise an error instead.
        self._step = torch.compile(_step, fullgraph=True, backend=backend)

    def capacity(self, length: int) -> int:
        """Length of the cache for a text of up to `length` tokens."""
        return min(self.model.config.context, max(SMALLEST, 1 << (length - 1).bit_length()))

    def logits(self, cache: Cache, ids: Tensor) -> Tensor:
        """Append the next tokens [slots, 1] to all slots of the cache; return the logits [slots, vocab] that follow."""
        step = cache.begin(len(ids), 1)
        logits = self._step(self.model, cache, ids, step.positions.contiguous())
        step.commit()
        return logits


def _step(model: Transformer, cache: Cache, ids: Tensor, positions: Tensor) -> Tensor:
    slots, starts = torch.arange(len(ids), device=ids.device), positions[:, 0]
    # No common start: only tensors know the rows' lengths.
    rows = StepRows(slots, slice(0, len(ids)), starts, torch.ones_like(starts), positions, None, cache.max_length)
    hidden = model.advance(ids, _WholeStep(cache, slots, rows), row_sum)
    return model.logits(hidden[:, -1], row_sum)


class _WholeStep(CacheStep):
    """Step that reads no tensor's value: it covers the cache's whole capacity, with a mask."""

    @property
    def counts(self) -> Tensor | None:
        return None

    @property
    def _source_length(self) -> int:
        return self.cache.source_length

    @property
    def _source_attention_mask(self) -> AttentionMask:
        mask = self.cache.source_mask[self.rows.index]
        return AttentionMask.cross_attention(self.rows.seq, mask.shape[1], mask, mask.device)
