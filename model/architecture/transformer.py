"""The language model: decoder-only, encoder-only or encoder-decoder, as configured by `TransformerConfig`.

The default is Llama's architecture (arXiv 2302.13971): RMSNorm pre-norm, RoPE, SwiGLU, GQA, tied head, no biases.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.attention import RotaryEmbedding
from sluice.model.architecture.attention_mask import (
    AttentionMask,
    RelativeBias,
    alibi_slopes,
    document_positions,
    sequence_lengths,
)
from sluice.model.architecture.block import ForwardContext, make_block
from sluice.model.architecture.cache import Cache, CacheStep
from sluice.model.architecture.config import LayerKind, TransformerConfig
from sluice.model.architecture.inputs import Inputs, check_inputs, check_rows
from sluice.model.architecture.kernels import KernelName
from sluice.model.architecture.mlm_head import MlmHead
from sluice.model.architecture.moe import Routing
from sluice.model.architecture.pointwise import LinearBackend, make_norm, separate


class Encoder(nn.Module):
    """Stack that reads the source of an encoder-decoder. It shares the decoder's embedding."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.relative = RelativeBias(config, causal=False) if config.positions == "relative" else None
        kinds = config.encoder_kinds
        self.layers = nn.ModuleList(make_block(config, layer, encoder=True) for layer in range(len(kinds)))
        self.norm = make_norm(config) if config.norm_position != "post" else None


class Transformer(nn.Module):
    """Language model. Its weights are torch's defaults until `initialize` or a checkpoint sets them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.causal = config.kind != "encoder"
        self.kernel: KernelName | None = None
        """Attention kernel to use; None: the best one that supports each call."""
        self.routing: tuple[Routing, ...] = ()
        """Routing of the MoE layers in the last forward pass, in the order of the layers."""
        width = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Embedding(config.context, width) if config.positions == "learned" else None
        self.type_embedding = nn.Embedding(config.token_types, width) if config.token_types else None
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.encoder = Encoder(config) if config.kind == "encoder-decoder" else None
        self.rotary: RotaryEmbedding | None = None
        self.window_rotary: RotaryEmbedding | None = None
        """Rotation of `window` layers, if it is another."""
        if config.positions == "rope":
            self.rotary = RotaryEmbedding(config.rope_width, config.context, *config.rope_of("attention"))
            if config.rope_of("window") != config.rope_of("attention"):
                self.window_rotary = RotaryEmbedding(config.rope_width, config.context, *config.rope_of("window"))
        self.relative = RelativeBias(config, causal=self.causal) if config.positions == "relative" else None
        self.layers = nn.ModuleList(make_block(config, layer) for layer in range(config.layers))
        self.norm = make_norm(config) if config.norm_position != "post" else None
        self.head_transform = MlmHead(config) if config.head_transform else None
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.head_transform else None
        self.head = None if config.tie_embeddings else nn.Linear(width, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """[vocab, hidden]: the matrix that maps hidden states to logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(self, ids: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Logits [batch, seq, vocab] of the token after each of `ids` [batch, seq] (encoder: of the token at its
        place); `inputs` as in `hidden`.
        """
        return self.logits(self.hidden(ids, **inputs))

    def logits(self, hidden: Tensor, linear: LinearBackend = separate) -> Tensor:
        """Output of `hidden`, [.., hidden] -> [.., vocab]."""
        logits = linear.linear(hidden, self.head_weight, self.head_bias)
        cap = self.config.logit_soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def hidden(
        self,
        ids: Tensor,
        *,
        cache: Cache | None = None,
        slots: Tensor | None = None,
        counts: Tensor | None = None,
        lengths: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        mask: Tensor | None = None,
        types: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        linear: LinearBackend = separate,
    ) -> Tensor:
        """Final hidden states [batch, seq, hidden] of `ids` [batch, seq] int64, the input of the head.

        Without a cache each row is a whole sequence. `documents` [batch, seq] int64 numbers the documents packed into a
        row, one after another: each is processed as if it were alone; negative numbers are padding. `positions` [batch,
        seq] replaces 0, 1, 2, .. in position embeddings and rotations. `mask` [batch, seq] bool is False for padding.
        `types` [batch, seq] are the segments of an encoder with `token_types`.

        An encoder-decoder reads `source` [batch, source] int64, in which `source_mask` is False for padding; with a
        cache only a sequence's first step is given the source.

        With a cache row i holds the next tokens of slot `slots[i]` ([batch] int64, all different; default: slot i):
        prefill is a call on empty slots, decoding is a call with seq = 1. Rows may be at different lengths. Prompts of
        different lengths prefill together when padded on the right with any token: `counts` [batch] is the number of
        real tokens of each row, and outputs at padding positions are undefined. The slots' lengths grow by `counts`
        (default: by seq). `lengths` [batch] int64 are the tokens of the whole sequences, for rotary scaling that
        follows them: give it with the chunks of a prompt (default: the tokens so far).

        `linear` computes the linear maps; see `LinearBackend`.

        Raises ValueError for a token outside the vocabulary, a sequence longer than the context or the cache, an
        argument of the wrong shape, and arguments that exclude each other.
        """
        inputs = Inputs(
            cache=cache,
            slots=slots,
            counts=counts,
            lengths=lengths,
            positions=positions,
            documents=documents,
            mask=mask,
            types=types,
            source=source,
            source_mask=source_mask,
        )
        check_inputs(self.config, ids, inputs, training=self.training)
        encoded = None if source is None else self.encode(source, source_mask)
        step = None
        if cache is None:
            if positions is None:
                count = torch.arange(ids.shape[1], device=ids.device)
                positions = count if documents is None else document_positions(documents)
            context = self.context(ids, positions, documents, mask, linear)
            if encoded is not None:
                context.source = encoded
                context.masks["source"] = AttentionMask.cross_attention(
                    ids.shape[1], encoded.shape[1], source_mask, ids.device
                )
        else:
            if encoded is not None and source_mask is None:
                source_mask = torch.ones(encoded.shape[:2], dtype=torch.bool, device=encoded.device)
            batch, seq = ids.shape
            step = cache.begin(batch, seq, slots, counts, source_mask)
            positions, context = step.positions, self._cached_context(step, linear, encoded, lengths)

        x = self.embed(ids, positions, types)
        for layer in self.layers:
            x = layer(x, context)
        if step is not None:
            step.commit()
        self.routing = (*(self.routing if encoded is not None else ()), *context.routing)
        return self.finish(x)

    def advance(self, ids: Tensor, step: CacheStep, linear: LinearBackend = separate) -> Tensor:
        """The part of a decoding step in `hidden` between its checks and its commit, for a compiler to trace."""
        context = self._cached_context(step, linear)
        x = self.embed(ids, step.positions, None)
        for layer in self.layers:
            x = layer(x, context)
        return self.finish(x)

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Hidden states of the encoder: [batch, source] int64 -> [batch, source, hidden]."""
        if self.encoder is None:
            raise ValueError(f"a model of kind {self.config.kind} reads no source")
        check_rows(self.config, source, {"source_mask": source_mask}, training=self.training, name="source")
        positions = torch.arange(source.shape[1], device=source.device)
        kinds, relative = self.config.encoder_kinds, self.encoder.relative
        context = ForwardContext(
            masks=self._self_attention_masks(kinds, source, relative, causal=False, mask=source_mask),
            rotary=self._rotations(positions, lambda: sequence_lengths(positions, mask=source_mask)),
            real=source_mask,
            kernel=self.kernel,
        )
        x = self.embed(source, positions, None)
        for layer in self.encoder.layers:
            x = layer(x, context)
        self.routing = tuple(context.routing)
        return x if self.encoder.norm is None else self.encoder.norm(x)

    def embed(self, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        """Input of the first layer: [batch, seq] int64 -> [batch, seq, hidden]."""
        x = self.embedding(ids)
        if self.config.embedding_scale != 1.0:
            # Rounded to the type of the weights, as models with a scale are trained in bfloat16.
            x = x * torch.full((), self.config.embedding_scale, dtype=x.dtype, device=x.device)
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        elif self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, self.config.hidden_size).to(x.dtype)
        if self.type_embedding is not None:
            x = x + self.type_embedding(torch.zeros_like(ids) if types is None else types)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return functional.dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def finish(self, x: Tensor) -> Tensor:
        """Output of the last layer -> input of the head, [batch, seq, hidden]."""
        if self.norm is not None:
            x = self.norm(x)
        if self.head_transform is not None:
            x = self.head_transform(x)
        return x if self.config.logit_scale == 1.0 else x * self.config.logit_scale

    def context(
        self,
        ids: Tensor,
        positions: Tensor,
        documents: Tensor | None = None,
        mask: Tensor | None = None,
        linear: LinearBackend = separate,
    ) -> ForwardContext:
        """Context of a pass in which each row of `ids` is a whole sequence; arguments as in `hidden`."""
        real = mask
        if documents is not None and self.config.mixture is not None:
            real = documents >= 0 if mask is None else mask & (documents >= 0)
        return ForwardContext(
            masks=self._self_attention_masks(
                self.config.layer_kinds, ids, self.relative, causal=self.causal, documents=documents, mask=mask
            ),
            rotary=self._rotations(positions, lambda: sequence_lengths(positions, documents, mask)),
            documents=documents,
            real=real,
            kernel=self.kernel,
            linear=linear,
        )

    def _cached_context(
        self,
        step: CacheStep,
        linear: LinearBackend,
        encoded: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> ForwardContext:
        """Context of a step over the cache; `encoded` is the source given in this step."""
        masks: dict[LayerKind | Literal["source"], AttentionMask] = {
            kind: self._with_bias(step.mask(kind), self.relative)
            for kind in dict.fromkeys(self.config.layer_kinds)
            if kind != "state_space"
        }
        if self.encoder is not None:
            masks["source"] = step.mask("source")
        return ForwardContext(
            masks=masks,
            rotary=self._rotations(step.positions, lambda: step.lengths if lengths is None else lengths.unsqueeze(1)),
            step=step,
            source=encoded,
            kernel=self.kernel,
            linear=linear,
        )

    def _rotations(self, positions: Tensor, lengths: Callable[[], Tensor]) -> dict[LayerKind, tuple[Tensor, Tensor]]:
        """Cosine and sine of the positions for each kind of attention layer; empty without rotary positions. `lengths`
        are computed only where the rotation follows them.
        """
        if self.rotary is None:
            return {}
        turns = self.rotary(positions, lengths() if self.rotary.follows_length else None)
        return {"attention": turns, "window": turns if self.window_rotary is None else self.window_rotary(positions)}

    def _self_attention_masks(
        self,
        kinds: Iterable[LayerKind],
        ids: Tensor,
        relative: RelativeBias | None,
        *,
        causal: bool,
        documents: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[LayerKind | Literal["source"], AttentionMask]:
        """Mask of each kind of attention layer over whole sequences `ids`."""
        masks: dict[LayerKind | Literal["source"], AttentionMask] = {}
        for kind in dict.fromkeys(kinds):
            if kind == "state_space":
                continue
            window = self.config.window if kind == "window" else None
            unbiased = AttentionMask.self_attention(
                ids.shape[1],
                causal=causal,
                window=window,
                global_tokens=self.config.global_tokens if window else 0,
                documents=documents,
                mask=mask,
                device=ids.device,
            )
            masks[kind] = self._with_bias(unbiased, relative)
        return masks

    def _with_bias(self, mask: AttentionMask, relative: RelativeBias | None) -> AttentionMask:
        """Add scores that depend on the distance: T5's table, or ALiBi's slopes."""
        if relative is not None:
            return replace(mask, bias=relative(mask.distances), plain=False)
        if self.config.positions == "alibi":
            return replace(mask, slopes=alibi_slopes(self.config.heads, mask.query_positions.device), plain=False)
        return mask


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """[..., seq] int64 -> [..., seq, size] float32: alternating sine and cosine (Vaswani et al., arXiv 1706.03762)."""
    exponents = torch.arange(0, size, 2, device=positions.device).float() / size
    angles = positions[..., None].float() * 10_000.0**-exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
