"""Sampling and autoregressive decoding."""

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.compiled import Compiled
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.linear_backends import Joined, apart, joining_pays
from sluice.model.architecture.transformer import Transformer


def sample(
    logits: Tensor, temperature: float | Tensor, top_p: float | Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draws one token a row: [batch, vocab] -> [batch] int64.

    `temperature` and `top_p` are one number for all rows or a tensor [batch]. Temperature 0 is greedy. `top_p` keeps
    the fewest most probable tokens whose probabilities reach it (nucleus sampling, Holtzman et al., arXiv 1904.09751).
    """
    if isinstance(temperature, int | float) and temperature <= 0:
        return logits.argmax(dim=-1)
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
    source: Sequence[int] | None = None,
    cache: bool | Literal["int8"] = True,
    decoder: Joined | Compiled | None = None,
) -> list[int]:
    """Continues `ids` by up to `max_tokens` tokens, ending early before a token of `stop_ids` or at the context's end.

    An encoder-decoder reads `source` and continues `ids`, the start token at least. `cache`: True keeps what earlier
    tokens leave, "int8" keeps keys and values in 8 bits, False reads the whole sequence again for every token.
    `decoder` computes the steps after the prompt, and is given to all texts of a model: `Joined` packs its weights for
    the first text, which must then stay as they are, and `Compiled` compiles a step. Without one every call packs the
    weights anew where that pays.

    Returns the new tokens alone, without the stop token. Raises ValueError for an empty prompt or one that leaves no
    room in the context, a temperature or top_p out of its range, a model that generates nothing, and one that drops at
    random, being in training mode.
    """
    context = model.config.context
    _check_generates(model, source)
    # Written so that NaN fails too.
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature {temperature} must be at least 0 and finite; 0 is greedy")
    if not 0 <= top_p <= 1:
        raise ValueError(f"top_p {top_p} must be between 0 and 1; 1 draws from all tokens")
    if not 1 <= len(ids) < context:
        raise ValueError(
            f"prompt of {len(ids)} tokens must have at least 1 and at most {context - 1} (the context less one)"
        )
    if cache not in (True, False, "int8"):
        raise ValueError(f"cache {cache!r} is not one of True, False and 'int8'")
    if cache is False and decoder is not None:
        raise ValueError("a decoder has no effect without a cache: leave it out, or cache")
    if isinstance(decoder, Compiled) and decoder.model is not model:
        raise ValueError("the decoder was compiled for another model: make one for this")
    if max_tokens < 0:
        raise ValueError(f"max_tokens {max_tokens} must be at least 0")
    device, length = model.embedding.weight.device, min(context, len(ids) + max_tokens)
    if cache is False:
        step = _uncached(model, source)
    else:
        if decoder is None and joining_pays(model, length - len(ids)):
            decoder = Joined()
        step = _cached(model, source, length, decoder, quantized=cache == "int8")
    generator = torch.Generator(device=device).manual_seed(seed)
    fed, answer = torch.tensor([list(ids)], device=device), []
    for _ in range(length - len(ids)):
        fed = sample(step(fed), temperature, top_p, generator)[:, None]
        token = int(fed)
        if token in stop_ids:
            break
        answer.append(token)
    return answer


Step = Callable[[Tensor], Tensor]
"""New ids [1, seq] of one sequence -> logits [1, vocab] of the token after them."""


def _cached(
    model: Transformer, source: Sequence[int] | None, length: int, decoder: Joined | Compiled | None, *, quantized: bool
) -> Step:
    """`length` tokens at most."""
    if isinstance(decoder, Compiled):
        length = decoder.capacity(length)
    weight = model.embedding.weight
    read = None if source is None else torch.tensor([list(source)], device=weight.device)
    kept = Cache(
        model.config,
        1,
        length,
        dtype=weight.dtype,
        device=weight.device,
        quantized=quantized,
        source_length=None if read is None else read.shape[1],
    )

    def step(fed: Tensor) -> Tensor:
        if not int(kept.lengths):
            # Many rows at once: nothing is gained by joining.
            return model.logits(model.hidden(fed, cache=kept, source=read)[:, -1])
        if isinstance(decoder, Compiled):
            return decoder.logits(kept, fed)
        hidden = model.hidden(fed, cache=kept, project=decoder or apart)
        return model.logits(hidden[:, -1], decoder or apart)

    return step


def _uncached(model: Transformer, source: Sequence[int] | None) -> Step:
    device = model.embedding.weight.device
    read = None if source is None else torch.tensor([list(source)], device=device)
    sequence = torch.empty((1, 0), dtype=torch.int64, device=device)

    def step(fed: Tensor) -> Tensor:
        nonlocal sequence
        sequence = torch.cat((sequence, fed), dim=1)
        return model.logits(model.hidden(sequence, source=read)[:, -1])

    return step


def _check_generates(model: Transformer, source: Sequence[int] | None) -> None:
    kind, context = model.config.kind, model.config.context
    if kind == "encoder":
        raise ValueError("a model of kind encoder fills in masked tokens and generates none: use a decoder")
    if kind == "decoder" and source is not None:
        raise ValueError("a model of kind decoder reads no source: put it into the prompt")
    if model.training and _drops(model.config):
        raise ValueError("the model is in training mode, in which it drops at random: call eval() before generate")
    if kind == "encoder-decoder" and (source is None or not 1 <= len(source) <= context):
        given = "none" if source is None else f"one of {len(source)} tokens"
        raise ValueError(f"a model of kind encoder-decoder needs a source of 1 to {context} tokens, not {given}")


def _drops(config: TransformerConfig) -> bool:
    """Whether a forward pass in training mode is another than in evaluation."""
    limited = config.mixture is not None and config.mixture.capacity_factor is not None
    return limited or bool(config.dropout or config.attention_dropout)
