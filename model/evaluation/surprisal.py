"""Surprisal: how many nats and bits each token of a text costs a model, and a page that colours the text by it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice.model.evaluation.evaluated import ContinuationRequest, EvaluatedModel

PAGE_FILE = "surprisal.html.j2"
LEVELS = 8
BITS_PER_LEVEL = 2


@dataclass(frozen=True)
class TokenSurprisal:
    """One token of a text and its negative log-likelihood, given all before it."""

    text: str
    """Empty for a token that is part of a character: the character's last token has it."""
    nats: float
    """NaN where the model gave no number."""

    @property
    def bits(self) -> float:
        return self.nats / math.log(2)

    @property
    def level(self) -> int | None:
        """Shade of the page: 0 for what the model expects, at most LEVELS - 1; None without a number."""
        return min(LEVELS - 1, int(self.bits / BITS_PER_LEVEL)) if math.isfinite(self.bits) else None


def surprisal(model: EvaluatedModel, text: str) -> list[TokenSurprisal]:
    """Return the surprisal of every token of `text` as a document, however long. ValueError for an empty text."""
    if not text:
        raise ValueError("an empty text has no surprisal: give one with at least a character")
    (found,) = model.score([ContinuationRequest("", text, whole=True)])
    return [TokenSurprisal(token, nats) for token, nats in zip(found.tokens, found.token_nats, strict=True)]


def whole_characters(tokens: Sequence[TokenSurprisal]) -> list[TokenSurprisal]:
    """Join tokens that are parts of one character, whose nats add up."""
    joined, nats = [], 0.0
    for token in tokens:
        nats += token.nats
        if token.text:
            joined.append(TokenSurprisal(token.text, nats))
            nats = 0.0
    return joined


def render_surprisal(tokens: Sequence[TokenSurprisal], title: str) -> str:
    """Render the page: each token on a shade by its bits, which its tooltip names. Tokens are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    bits = sum(token.bits for token in tokens)
    return page.get_template(PAGE_FILE).render(
        title=title,
        tokens=whole_characters(tokens),
        count=len(tokens),
        bits=bits,
        nats=sum(token.nats for token in tokens),
        size=sum(len(token.text.encode()) for token in tokens),
        levels=[f"{level * BITS_PER_LEVEL} to {(level + 1) * BITS_PER_LEVEL}" for level in range(LEVELS - 1)]
        + [f"{(LEVELS - 1) * BITS_PER_LEVEL} and more"],
    )
