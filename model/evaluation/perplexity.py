"""Held-out bits per byte: a perplexity that compares models with different tokenizers."""

import math
import unicodedata
from collections.abc import Sequence

from sluice.core.progress import Progress, no_progress
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.likelihood import Span, negative_log_likelihoods
from sluice.model.text.prompt import PromptEncoder


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
    model: Transformer, encoder: PromptEncoder, texts: Sequence[str], progress: Progress = no_progress
) -> list[float]:
    """Return the bits `model` needs for each of `texts`; each begins after the token that begins a document and is
    scored in full.

    Of a text whose case, accents or white space its tokenizer changes (WordPiece), the bytes that are lost count as
    the others do on average. NaN for a text that changes otherwise: what is not encoded would cost nothing.
    """
    tokenizer, start = encoder.tokenizer, encoder.document_start
    spans: list[Span] = []
    owners: list[int] = []
    bits, scale = [0.0] * len(texts), [1.0] * len(texts)
    for index, text in enumerate(texts):
        ids = encoder.encode_text(text)
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        if decoded != text and _letters(decoded) != _letters(text):
            scale[index] = math.nan
            continue
        scale[index] = max(1.0, len(text.encode()) / max(1, len(decoded.encode())))
        found = windows([start[-1], *ids], model.config.context)
        spans += found
        owners += [index] * len(found)
    for owner, nats in zip(owners, negative_log_likelihoods(model, spans, progress, "bits per byte"), strict=True):
        bits[owner] += nats / math.log(2)
    return [each * factor for each, factor in zip(bits, scale, strict=True)]


def _letters(text: str) -> str:
    """`text` without case, accents and white space."""
    return "".join(
        each
        for each in unicodedata.normalize("NFKD", text).casefold()
        if not each.isspace() and not unicodedata.combining(each)
    )
