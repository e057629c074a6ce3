"""Sampling and autoregressive decoding."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from model.architecture.cache import KVCache
from model.architecture.transformer import Transformer


def sample(
    logits: Tensor, temperature: float | Tensor, top_p: float | Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draws one token a row: [batch, vocab] -> [batch] int64.

    `temperature` and `top_p` are one number for all rows or a tensor [batch]. Temperature 0 is greedy. `top_p` keeps
    the fewest most probable tokens whose probabilities reach it (nucleus sampling, Holtzman et al., arXiv 1904.09751).
    """
    logits = logits.float()
    temperatures = torch.as_tensor(temperature, device=logits.device).expand(len(logits))
    greedy = logits.argmax(dim=-1)
    if not bool((temperatures > 0).any()):
        return greedy
    # The row's own floor keeps a greedy row finite; its draw is thrown away below.
    scaled = logits / temperatures.clamp(min=1e-6)[:, None]
    probabilities, tokens = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = torch.as_tensor(top_p, device=logits.device).expand(len(logits))[:, None]
    # The first token has nothing before it: it stays whatever top_p is.
    outside = before >= nucleus
    outside[:, 0] = False
    drawn = torch.multinomial(probabilities.masked_fill(outside, 0.0), 1, generator=generator)
    return torch.where(temperatures > 0, tokens.gather(1, drawn).squeeze(1), greedy)


@torch.inference_mode()
def generate(
    model: Transformer,
    ids: Sequence[int],
    max_tokens: int,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop_ids: Collection[int] = (),
    seed: int = 0,
) -> list[int]:
    """Continues `ids` by up to `max_tokens` tokens, ending early before a token of `stop_ids` or at the context's end.

    Returns the new tokens alone, without the stop token. Raises ValueError for an empty prompt or one that leaves no
    room in the context.
    """
    context = model.config.context
    if not 1 <= len(ids) < context:
        raise ValueError(
            f"prompt of {len(ids)} tokens must have at least 1 and at most {context - 1} (the context less one)"
        )
    weight = model.embedding.weight
    length = min(context, len(ids) + max_tokens)
    cache = KVCache(model.config, 1, length, dtype=weight.dtype, device=weight.device)
    generator = torch.Generator(device=weight.device).manual_seed(seed)
    fed, answer = torch.tensor([list(ids)], device=weight.device), []
    for _ in range(length - len(ids)):
        logits = model(fed, cache=cache)[:, -1]
        fed = sample(logits, temperature, top_p, generator)[:, None]
        token = int(fed)
        if token in stop_ids:
            break
        answer.append(token)
    return answer
