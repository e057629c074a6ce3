"""Likelihood of tokens given those before: the one measurement under bits per byte and multiple choice."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sluice.core.progress import Progress, no_progress
from sluice.model.architecture.cache import Cache
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.prefix_tree import PrefixNode, prefix_trees

_TOKENS_AT_ONCE = 8_192
_PADDING_AT_ONCE = 64
"""Padding of a batch that costs less than another pass; beside it, an eighth of the tokens may be padding."""
_LOGITS_AT_ONCE = 1 << 21  # 8 MiB of float32
_CACHE_AT_ONCE = 1 << 28  # bytes of keys and values
NEAR_TIE = 1e-3
"""Difference of two logits that the order of float32 sums could turn around, with a wide margin."""


@dataclass(frozen=True)
class Span:
    """Tokens of which those from `start` on are scored, each given all before it."""

    ids: Sequence[int]
    start: int


@dataclass(frozen=True)
class SpanLikelihood:
    """Likelihood of a span's scored tokens."""

    token_nats: Sequence[float]
    """Not finite where the model's logits are not."""
    is_greedy: bool
    """Whether each token is the most likely one."""


@dataclass(frozen=True)
class _Read:
    """Tokens that one pass has scored: those of one span in order, in this pass and from pass to pass."""

    span: Tensor
    """[tokens] int64: the span that each token is of."""
    nats: Tensor
    """[tokens] float64."""
    lead: Tensor
    """[tokens]: the token's logit less the best other one; empty where nobody asked for it."""


def negative_log_likelihoods(
    model: Transformer, spans: Sequence[Span], progress: Progress = no_progress, note: str = "scoring"
) -> list[float]:
    """Return the nats of each span's scored tokens. Not finite where the model's logits are not."""
    nats = torch.zeros(len(spans), dtype=torch.float64)
    for read in _PrefixReader(model, spans).passes(progress, note):
        nats.index_add_(0, read.span, read.nats)
    return nats.tolist()


def span_likelihoods(
    model: Transformer, spans: Sequence[Span], progress: Progress = no_progress, note: str = "scoring"
) -> list[SpanLikelihood]:
    """Return the likelihood of each span by token: for any order and number of spans the same, up to the rounding of
    float32 sums. Where that could decide which token is the most likely, the span is read again on its own.
    """
    if not spans:
        return []
    passes = list(_PrefixReader(model, spans, leads=True).passes(progress, note))
    order = torch.cat([read.span for read in passes]).argsort(stable=True)
    sizes = [len(span.ids) - span.start for span in spans]
    nats = torch.cat([read.nats for read in passes])[order].split(sizes)
    leads = torch.cat([read.lead for read in passes])[order].split(sizes)
    found = []
    for span, own, lead in zip(spans, nats, leads, strict=True):
        least = float(lead.min())
        if abs(least) < NEAR_TIE and len(spans) > 1:
            (alone,) = _PrefixReader(model, [span], leads=True).passes(no_progress, note)
            least = float(alone.lead.min())
        found.append(SpanLikelihood(own.tolist(), math.isfinite(least) and least >= 0))
    return found


class _PrefixReader:
    """Reads spans through a model in passes of many rows, and what several begin with only once."""

    def __init__(self, model: Transformer, spans: Sequence[Span], *, leads: bool = False) -> None:
        assert all(1 <= span.start < len(span.ids) for span in spans), "a scored token has one before it"
        self._model, self._leads = model, leads
        self._device = model.embedding.weight.device
        self._ids = [np.asarray(span.ids, dtype=np.int64) for span in spans]
        self._starts = [span.start for span in spans]
        config, scaling = model.config, model.config.rope_scaling
        self._follows_length = scaling is not None and scaling.follows_length
        entry_bytes = 2 * config.kv_heads * config.head_width * model.embedding.weight.element_size()
        self._cache_tokens = _CACHE_AT_ONCE // (config.layers * entry_bytes)

    @torch.inference_mode()
    def passes(self, progress: Progress, note: str) -> Iterator[_Read]:
        """Yield every scored token once."""
        # A span's last token is only a target, which the model does not read.
        inputs = [ids[:-1] for ids in self._ids]
        if self._follows_length:
            # The rotation of the first tokens depends on the last.
            trees = [PrefixNode(0, len(ids), [index]) for index, ids in enumerate(inputs)]
        else:
            trees = prefix_trees(inputs)
        done = 0
        for nodes in _batches([tree for tree in trees if not tree.children]):
            yield self._score(nodes, self._hidden(nodes))
            done += sum(len(node.members) for node in nodes)
            progress(done, len(inputs), note)
        forks = [tree for tree in trees if tree.children]
        for nodes in _batches(forks, most=self._cache_tokens):
            width = nodes[0].tokens
            cache = Cache(self._model.config, len(nodes), width, self._model.embedding.weight.dtype, self._device)
            yield from self._descend(nodes, cache)
            done += sum(len(node.members) for node in nodes)
            progress(done, len(inputs), note)

    def _descend(self, nodes: Sequence[PrefixNode], cache: Cache) -> Iterator[_Read]:
        """Read nodes whose sequences the slots of `cache` hold up to them, and all nodes below."""
        yield self._score(nodes, self._hidden(nodes, cache))
        below = [(child, slot) for slot, node in enumerate(nodes) for child in node.children]
        slot_of = {id(child): slot for child, slot in below}
        context = self._model.config.context
        for batch in _batches([child for child, _ in below], most=self._cache_tokens, room=context):
            # Padding takes places too.
            length = max(cache.max_length, max(node.begin for node in batch) + batch[0].tokens)
            slots = torch.tensor([slot_of[id(child)] for child in batch])
            yield from self._descend(batch, cache.branch(slots, length))

    def _hidden(self, nodes: Sequence[PrefixNode], cache: Cache | None = None) -> Tensor:
        """Final hidden states [nodes, longest, hidden] of the nodes' tokens."""
        width = max(node.tokens for node in nodes)
        ids = torch.zeros(len(nodes), width, dtype=torch.int64)
        real = torch.zeros(len(nodes), width, dtype=torch.bool)
        for row, node in enumerate(nodes):
            ids[row, : node.tokens] = torch.from_numpy(self._ids[node.members[0]][node.begin : node.end])
            real[row, : node.tokens] = True
        # Padding is on the right, where a causal model cannot see it, unless its rotation follows the length.
        if cache is None:
            mask = real.to(self._device) if self._follows_length else None
            return self._model.hidden(ids.to(self._device), mask=mask)
        return self._model.hidden(ids.to(self._device), cache=cache, counts=real.sum(dim=1))

    def _score(self, nodes: Sequence[PrefixNode], hidden: Tensor) -> _Read:
        """Score every token that follows one of the nodes' tokens in one of their spans."""
        spans, rows, columns, targets = [], [], [], []
        for row, node in enumerate(nodes):
            for span in node.members:
                first = max(node.begin, self._starts[span] - 1)
                if first < node.end:
                    size = node.end - first
                    spans.append(np.full(size, span))
                    rows.append(np.full(size, row))
                    columns.append(np.arange(first - node.begin, node.tokens))
                    targets.append(self._ids[span][first + 1 : node.end + 1])
        if not spans:
            empty = torch.empty(0)
            return _Read(empty.long(), empty.double(), empty)
        # Only what is scored goes through the head, and once where several spans go on from it.
        width = hidden.shape[1]
        places, owner = np.unique(np.concatenate(rows) * width + np.concatenate(columns), return_inverse=True)
        nats, lead = self._nats(hidden.flatten(0, 1)[torch.from_numpy(places)], owner, np.concatenate(targets))
        return _Read(torch.from_numpy(np.concatenate(spans)), nats, lead)

    def _nats(self, hidden: Tensor, owner: NDArray[np.int64], targets: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """[places, hidden], and the place and the token of each scored one -> its nats and, if asked for, its lead."""
        rows = max(1, _LOGITS_AT_ONCE // self._model.config.vocab_size)
        nats = torch.empty(len(owner), dtype=torch.float64)
        lead = torch.empty(len(owner) if self._leads else 0)
        for begin in range(0, len(hidden), rows):
            chosen = np.flatnonzero((owner >= begin) & (owner < begin + rows))
            place = torch.from_numpy(owner[chosen] - begin).to(self._device)
            target = torch.from_numpy(targets[chosen]).to(self._device)
            logits = self._model.logits(hidden[begin : begin + rows]).float()
            own = logits[place, target]
            nats[chosen] = (logits.logsumexp(dim=1)[place] - own).double().cpu()
            if self._leads:
                best, token = logits.max(dim=1)
                second = logits.scatter_(1, token[:, None], -math.inf).amax(dim=1)
                lead[chosen] = (own - torch.where(token[place] == target, second[place], best[place])).cpu()
        return nats, lead


def _batches(
    nodes: Sequence[PrefixNode], most: int | None = None, room: int | None = None
) -> Iterator[list[PrefixNode]]:
    """Yield nodes of similar length together, so that little of a batch is padding.

    most: positions of all nodes of a batch from the beginnings of their sequences on. room: those of one node, with its
    padding.
    """
    batch: list[PrefixNode] = []
    real = longest = 0
    for node in sorted(nodes, key=lambda node: (-node.tokens, node.members[0])):
        longest = max(longest, node.begin)
        if batch:
            width, rows = batch[0].tokens, len(batch) + 1
            if (
                rows * width > _TOKENS_AT_ONCE
                or rows * width > (real + node.tokens) * 9 / 8 + _PADDING_AT_ONCE
                or (most is not None and rows * (longest + width) > most)
                or (room is not None and longest + width > room)
            ):
                yield batch
                batch, real, longest = [], 0, node.begin
        batch.append(node)
        real += node.tokens
    if batch:
        yield batch
