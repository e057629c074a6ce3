"""Drawing the next token from logits: temperature, top-k and nucleus sampling, and a penalty for repetition."""

import torch
from torch import Tensor


def sample(
    logits: Tensor,
    temperature: float | Tensor,
    top_p: float | Tensor,
    generator: torch.Generator | None = None,
    *,
    top_k: int | None = None,
) -> Tensor:
    """Draw one token per row: [batch, vocab] -> [batch] int64.

    `temperature` and `top_p` are one number for all rows or a tensor [batch]. Temperature 0 is greedy. `top_p` keeps
    the fewest most probable tokens whose probabilities reach it (nucleus sampling, Holtzman et al., arXiv 1904.09751).
    `top_k` keeps that many before (Fan et al., arXiv 1805.04833).
    """
    if isinstance(temperature, int | float) and temperature <= 0:
        return logits.argmax(dim=-1)
    logits = logits.float()
    temperatures = torch.as_tensor(temperature, device=logits.device).expand(len(logits))
    greedy = logits.argmax(dim=-1)
    if not bool((temperatures > 0).any()):
        return greedy
    # The minimum keeps greedy rows finite; their draw is discarded below.
    scaled = logits / temperatures.clamp(min=1e-6)[:, None]
    probabilities, tokens = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        probabilities = probabilities[:, :top_k]
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = torch.as_tensor(top_p, device=logits.device).expand(len(logits))[:, None]
    # The first token stays whatever top_p is.
    outside = before >= nucleus
    outside[:, 0] = False
    drawn = torch.multinomial(probabilities.masked_fill(outside, 0.0), 1, generator=generator)
    return torch.where(temperatures > 0, tokens.gather(1, drawn).squeeze(1), greedy)


def penalize_repetition(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Make tokens that occur in `ids` less probable: [batch, vocab], [batch, seq] -> [batch, vocab].

    Positive logits are divided by the penalty and negative ones multiplied (CTRL, Keskar et al., arXiv 1909.05858).
    """
    found = logits.gather(1, ids)
    return logits.scatter(1, ids, torch.where(found < 0, found * penalty, found / penalty))
