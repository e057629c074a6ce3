"""Held-out bits per byte: a perplexity that compares models with different tokenizers."""

import math
from collections.abc import Sequence

from tokenizers import Tokenizer

from sluice.core.progress import Progress, no_progress
from sluice.data.tokenization import END_OF_TEXT
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.likelihood import Span, encode, negative_log_likelihoods


def windows(ids: Sequence[int], context: int) -> list[Span]:
    """Split `ids` into overlapping windows that score every token but the first exactly once.

    The stride is half the context, so past the first window every token has at least half a context before it.
    """
    # A span's last token is only a target, so a span has one token more than the model reads.
    stride = max(1, context // 2)
    spans = [Span(ids[: context + 1], 1)] if len(ids) > 1 else []
    end = context + 1
    while end < len(ids):
        reach = min(end + stride, len(ids))
        spans.append(Span(ids[reach - context - 1 : reach], context + 1 - (reach - end)))
        end = reach
    return spans


def document_bits(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], progress: Progress = no_progress
) -> list[float]:
    """Return the bits `model` needs for each of `texts`; each begins after an end-of-text token and is scored in full.

    NaN for a text that its tokenizer does not decode unchanged: what is not encoded would cost nothing.
    """
    start = tokenizer.token_to_id(END_OF_TEXT)
    if start is None:
        raise ValueError(f"the tokenizer has no {END_OF_TEXT} to begin a document with; train it again")
    spans: list[Span] = []
    owners: list[int] = []
    bits = [0.0] * len(texts)
    for index, text in enumerate(texts):
        ids = encode(tokenizer, text)
        if tokenizer.decode(ids, skip_special_tokens=False) != text:
            bits[index] = math.nan
            continue
        found = windows([start, *ids], model.config.context)
        spans += found
        owners += [index] * len(found)
    for owner, nats in zip(owners, negative_log_likelihoods(model, spans, progress, "bits per byte"), strict=True):
        bits[owner] += nats / math.log(2)
    return bits
