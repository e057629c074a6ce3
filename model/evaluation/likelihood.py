"""Likelihood of tokens given those before: the one measurement under bits per byte and multiple choice."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sluice.core.progress import Progress, no_progress
from sluice.model.architecture.transformer import Transformer

_TOKENS_AT_ONCE = 8_192
_LOGITS_AT_ONCE = 1 << 21  # 8 MiB of float32
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
class _Scored:
    """Scored tokens of a batch of spans, row after row."""

    batch: list[int]
    """Indices of the spans."""
    row: Tensor
    """[tokens] int64: the row that each token is of."""
    nats: Tensor
    """[tokens] float64."""
    lead: Tensor
    """[tokens]: the token's logit less the best other one; empty where it was not computed."""


def negative_log_likelihoods(
    model: Transformer, spans: Sequence[Span], progress: Progress = no_progress, note: str = "scoring"
) -> list[float]:
    """Return the nats of each span's scored tokens. Not finite where the model's logits are not."""
    nats = torch.zeros(len(spans), dtype=torch.float64)
    for scored in _score(model, spans, progress, note):
        nats.index_add_(0, torch.tensor(scored.batch)[scored.row], scored.nats)
    return nats.tolist()


def span_likelihoods(
    model: Transformer, spans: Sequence[Span], progress: Progress = no_progress, note: str = "scoring"
) -> list[SpanLikelihood]:
    """Return the likelihood of each span by token: for any order and number of spans the same, up to the rounding of
    float32 sums. Where that could decide which token is the most likely, the span is read again on its own.
    """
    found: dict[int, SpanLikelihood] = {}
    for scored in _score(model, spans, progress, note, leads=True):
        for row, index in enumerate(scored.batch):
            own = scored.row == row
            least = float(scored.lead[own].min())
            if abs(least) < NEAR_TIE and len(scored.batch) > 1:
                (alone,) = _score(model, [spans[index]], no_progress, note, leads=True)
                least = float(alone.lead.min())
            found[index] = SpanLikelihood(scored.nats[own].tolist(), math.isfinite(least) and least >= 0)
    return [found[index] for index in range(len(spans))]


@torch.inference_mode()
def _score(
    model: Transformer, spans: Sequence[Span], progress: Progress, note: str, *, leads: bool = False
) -> Iterator[_Scored]:
    done = 0
    device = model.embedding.weight.device
    rows = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)
    scaling = model.config.rope_scaling
    follows_length = scaling is not None and scaling.follows_length
    for batch in _batches(spans):
        # Padding is on the right, where a causal model cannot see it, unless its rotation follows the length.
        width = max(len(spans[index].ids) for index in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        scored = torch.zeros(len(batch), width - 1, dtype=torch.bool)
        real = torch.zeros_like(scored)
        for row, span in enumerate(spans[index] for index in batch):
            ids[row, : len(span.ids)] = torch.tensor(span.ids)
            scored[row, span.start - 1 : len(span.ids) - 1] = True
            real[row, : len(span.ids) - 1] = True
        # Only what is scored goes through the head: of overlapping windows that is half, and the head half the work.
        mask = real.to(device) if follows_length else None
        hidden = model.hidden(ids[:, :-1].to(device), mask=mask)[scored.to(device)]  # [scored tokens, hidden]
        nats, lead = [], []
        for part, targets in zip(hidden.split(rows), ids[:, 1:][scored].to(device).split(rows), strict=True):
            logits = model.logits(part).float()
            nats.append(functional.cross_entropy(logits, targets, reduction="none"))
            if leads:
                own = logits.gather(1, targets[:, None])
                lead.append((own - logits.scatter_(1, targets[:, None], -math.inf).amax(1, keepdim=True))[:, 0])
        owner = torch.arange(len(batch))[:, None].expand_as(scored)[scored]
        yield _Scored(batch, owner, torch.cat(nats).double().cpu(), torch.cat(lead).cpu() if leads else torch.empty(0))
        done += len(batch)
        progress(done, len(spans), note)


def _batches(spans: Sequence[Span]) -> Iterator[list[int]]:
    """Yield the indices of spans of similar length, so that little of a batch is padding."""
    batch: list[int] = []
    for index in sorted(range(len(spans)), key=lambda i: (-len(spans[i].ids), i)):
        assert 1 <= spans[index].start < len(spans[index].ids), "a span scores a token, which has one before it"
        if batch and (len(batch) + 1) * len(spans[batch[0]].ids) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
