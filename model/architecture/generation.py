"""Autoregressive decoding."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.compiled import CompiledDecoder
from sluice.model.architecture.linear_backends import FusedLinear, fusing_pays
from sluice.model.architecture.pointwise import separate
from sluice.model.architecture.sampling import penalize_repetition, sample
from sluice.model.architecture.transformer import Transformer


@dataclass(frozen=True)
class GenerationOptions:
    """How to generate. Raises ValueError for a setting out of range and settings that exclude each other."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    stop_ids: Collection[int] = ()
    """Tokens before which generation ends."""
    seed: int = 0
    source: Sequence[int] | None = None
    """Tokens that an encoder-decoder reads."""
    cache: bool | Literal["int8"] = True
    """True caches keys, values and states, "int8" caches keys and values in 8 bits, False processes the whole sequence
    for every token.
    """
    decoder: FusedLinear | CompiledDecoder | None = None
    """Computes the steps after the prompt and can be shared by all texts of a model: `FusedLinear` packs the weights at
    the first text, after which they must not change; `CompiledDecoder` compiles a step. None: every call packs the
    weights where that pays.
    """

    def __post_init__(self) -> None:
        # Written so that NaN fails too.
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature} must be at least 0 and finite; 0 is greedy")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} must be between 0 and 1; 1 draws from all tokens")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} must be at least 1; None draws from all tokens")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty {self.repetition_penalty} must be above 0 and finite; 1 is none")
        if self.cache not in (True, False, "int8"):
            raise ValueError(f"cache {self.cache!r} is not one of True, False and 'int8'")
        if self.cache is False and self.decoder is not None:
            raise ValueError("a decoder has no effect without a cache: leave it out, or cache")


def generate(
    model: Transformer, ids: Sequence[int], max_tokens: int, options: GenerationOptions = GenerationOptions()
) -> list[int]:
    """Continue `ids` by up to `max_tokens` tokens, ending early before a stop token or at the context's end.

    An encoder-decoder continues `ids`, at least the start token. Returns the new tokens only, without the stop token.
    Raises ValueError for an empty prompt or one that fills the context, a model that cannot generate, and one in
    training mode with dropout.
    """
    return list(stream(model, ids, max_tokens, options))


@torch.inference_mode()
def stream(
    model: Transformer, ids: Sequence[int], max_tokens: int, options: GenerationOptions = GenerationOptions()
) -> Iterator[int]:
    """Yield the tokens of `generate`, each when it is computed."""
    context, source, decoder = model.config.context, options.source, options.decoder
    _check_generates(model, source)
    if not 1 <= len(ids) < context:
        raise ValueError(
            f"prompt of {len(ids)} tokens must have at least 1 and at most {context - 1} (the context less one)"
        )
    if isinstance(decoder, CompiledDecoder) and decoder.model is not model:
        raise ValueError("the decoder was compiled for another model: make one for this")
    if max_tokens < 0:
        raise ValueError(f"max_tokens {max_tokens} must be at least 0")
    device, length = model.embedding.weight.device, min(context, len(ids) + max_tokens)
    if options.cache is False:
        step = _uncached(model, source)
    else:
        if decoder is None and fusing_pays(model, length - len(ids)):
            decoder = FusedLinear()
        step = _cached(model, source, length, decoder, quantized=options.cache == "int8")
    generator = torch.Generator(device=device).manual_seed(options.seed)
    penalty = options.repetition_penalty
    fed = torch.tensor([list(ids)], device=device)
    seen = fed
    for _ in range(length - len(ids)):
        logits = step(fed)
        if penalty != 1.0:
            logits = penalize_repetition(logits.float(), seen, penalty)
        fed = sample(logits, options.temperature, options.top_p, generator, top_k=options.top_k)[:, None]
        seen = torch.cat((seen, fed), dim=1) if penalty != 1.0 else seen
        token = int(fed)
        if token in options.stop_ids:
            return
        yield token


Step = Callable[[Tensor], Tensor]
"""New ids [1, seq] of one sequence -> logits [1, vocab] of the token that follows."""


def _cached(
    model: Transformer,
    source: Sequence[int] | None,
    length: int,
    decoder: FusedLinear | CompiledDecoder | None,
    *,
    quantized: bool,
) -> Step:
    """Step over a cache of at most `length` tokens."""
    if isinstance(decoder, CompiledDecoder):
        length = decoder.capacity(length)
    weight = model.embedding.weight
    source_ids = None if source is None else torch.tensor([list(source)], device=weight.device)
    kv_cache = Cache(
        model.config,
        1,
        length,
        dtype=weight.dtype,
        device=weight.device,
        quantized=quantized,
        source_length=None if source_ids is None else source_ids.shape[1],
    )

    sequence: list[Tensor] = []
    scaling = model.config.rope_scaling

    def step(fed: Tensor) -> Tensor:
        sequence.append(fed)
        held = int(kv_cache.lengths)
        if scaling is not None and scaling.changes(held, held + fed.shape[1], model.config.context):
            kv_cache.reset()
            fed = torch.cat(sequence, dim=1)
        if not int(kv_cache.lengths):
            # The prompt is many rows at once: fusing gains nothing.
            return model.logits(model.hidden(fed, cache=kv_cache, source=source_ids)[:, -1])
        if isinstance(decoder, CompiledDecoder):
            return decoder.logits(kv_cache, fed)
        hidden = model.hidden(fed, cache=kv_cache, linear=decoder or separate)
        return model.logits(hidden[:, -1], decoder or separate)

    return step


def _uncached(model: Transformer, source: Sequence[int] | None) -> Step:
    """Step that processes the whole sequence again."""
    device = model.embedding.weight.device
    source_ids = None if source is None else torch.tensor([list(source)], device=device)
    sequence = torch.empty((1, 0), dtype=torch.int64, device=device)

    def step(fed: Tensor) -> Tensor:
        nonlocal sequence
        sequence = torch.cat((sequence, fed), dim=1)
        return model.logits(model.hidden(sequence, source=source_ids)[:, -1])

    return step


def _check_generates(model: Transformer, source: Sequence[int] | None) -> None:
    kind, context = model.config.kind, model.config.context
    if kind == "encoder":
        raise ValueError("a model of kind encoder fills in masked tokens and generates none: use a decoder")
    if kind == "decoder" and source is not None:
        raise ValueError("a model of kind decoder reads no source: put it into the prompt")
    limited = model.config.mixture is not None and model.config.mixture.capacity_factor is not None
    if model.training and (limited or model.config.dropout or model.config.attention_dropout):
        raise ValueError("the model is in training mode, in which it drops at random: call eval() before generate")
    if kind == "encoder-decoder" and (source is None or not 1 <= len(source) <= context):
        given = "none" if source is None else f"one of {len(source)} tokens"
        raise ValueError(f"a model of kind encoder-decoder needs a source of 1 to {context} tokens, not {given}")
