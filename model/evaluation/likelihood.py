"""Likelihood of tokens given those before: the one measurement under bits per byte and multiple choice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from sluice.core.progress import Progress, no_progress
from sluice.model.architecture.transformer import Transformer

_TOKENS_AT_ONCE = 8_192
_LOGITS_AT_ONCE = 1 << 21  # 8 MiB of float32


@dataclass(frozen=True)
class Span:
    """Tokens of which those from `start` on are scored, each given all before it."""

    ids: Sequence[int]
    start: int


@torch.inference_mode()
def negative_log_likelihoods(
    model: Transformer, spans: Sequence[Span], progress: Progress = no_progress, note: str = "scoring"
) -> list[float]:
    """Return the nats of each span's scored tokens. Not finite where the model's logits are not."""
    nats = torch.zeros(len(spans), dtype=torch.float64)
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
        parts = [
            functional.cross_entropy(model.logits(part).float(), targets, reduction="none")
            for part, targets in zip(hidden.split(rows), ids[:, 1:][scored].to(device).split(rows), strict=True)
        ]
        owner = torch.tensor(batch)[:, None].expand_as(scored)[scored]
        nats.index_add_(0, owner, torch.cat(parts).double().cpu())
        done += len(batch)
        progress(done, len(spans), note)
    return nats.tolist()


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
