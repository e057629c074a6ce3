"""Held-out bits per byte: perplexity that models with different tokenizers can be compared by."""

import math
from collections.abc import Sequence

from tokenizers import Tokenizer

from sluice.core.progress import Progress, no_progress
from sluice.data.tokenization import END_OF_TEXT
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.likelihood import Span, encode, negative_log_likelihoods


def cut(text: str, max_bytes: int) -> str:
    """The longest beginning of `text` that is at most `max_bytes` of UTF-8. Every model and baseline scores this."""
    return text.encode()[:max_bytes].decode(errors="ignore")


def windows(ids: Sequence[int], context: int) -> list[Span]:
    """Overlapping windows over `ids`, which score every token but the first exactly once.

    The stride is half the context, so past the first window every token has at least half a context before it.
    """
    # A span's last token is only a target, so it holds one token more than the model reads.
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
    """Bits `model` needs for each of `texts`, which begins after an end-of-text token and is scored from its first.

    NaN for a text its tokenizer does not give back unchanged: what is not encoded would cost nothing.
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
