"""The transformer: decoder-only, encoder-only or encoder-decoder, as `TransformerConfig` says.

By default a Llama (arXiv 2302.13971): RMSNorm pre-norm, RoPE, SwiGLU, GQA, tied head, no biases.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.attention_mask import Visibility, between, document_positions, within
from sluice.model.architecture.block import Block, make_block
from sluice.model.architecture.cache import Cache, CacheStep
from sluice.model.architecture.config import LayerKind, TransformerConfig
from sluice.model.architecture.inputs import Inputs, check, check_rows
from sluice.model.architecture.kernels import KernelName
from sluice.model.architecture.linear_backends import Project, apart
from sluice.model.architecture.mlm_head import HeadTransform
from sluice.model.architecture.moe import Routing
from sluice.model.architecture.pass_state import Pass
from sluice.model.architecture.pointwise import make_norm
from sluice.model.architecture.positions import RelativeBias, RotaryEmbedding, alibi_slopes, sinusoids


class Encoder(nn.Module):
    """The stack that reads the source of an encoder-decoder. It shares the decoder's embedding."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.relative = RelativeBias(config, causal=False) if config.positions == "relative" else None
        self.layers = nn.ModuleList(Block(config, layer, encoder=True) for layer in range(len(config.encoder_kinds)))
        self.norm = make_norm(config) if config.norm_position == "pre" else None


class Transformer(nn.Module):
    """The language model. Weights are as torch makes them until `initialize` or a checkpoint sets them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.causal = config.kind != "encoder"
        self.kernel: KernelName | None = None
        """Attention kernel to use; None: for each call the best that can do it."""
        self.routing: tuple[Routing, ...] = ()
        """What the mixtures said in the last forward pass, in the order of the layers."""
        width = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Embedding(config.context, width) if config.positions == "learned" else None
        self.type_embedding = nn.Embedding(config.token_types, width) if config.token_types else None
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.encoder = Encoder(config) if config.kind == "encoder-decoder" else None
        self.rotary = (
            RotaryEmbedding(config.head_width, config.context, config.rope_theta, config.rope_scaling)
            if config.positions == "rope"
            else None
        )
        self.relative = RelativeBias(config, causal=self.causal) if config.positions == "relative" else None
        self.layers = nn.ModuleList(make_block(config, layer) for layer in range(config.layers))
        self.norm = make_norm(config) if config.norm_position == "pre" else None
        self.head_transform = HeadTransform(config) if config.head_transform else None
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.head_transform else None
        self.head = None if config.tie_embeddings else nn.Linear(width, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """[vocab, hidden]: the matrix that turns hidden states into logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(self, ids: Tensor, **inputs: Unpack[Inputs]) -> Tensor:
        """Logits [batch, seq, vocab] of the token after each of `ids` [batch, seq] (of an encoder: of the token in its
        place); arguments as of `hidden`.
        """
        return self.logits(self.hidden(ids, **inputs))

    def logits(self, hidden: Tensor, project: Project = apart) -> Tensor:
        """[.., hidden] of `hidden` -> [.., vocab]."""
        logits = project.linear(hidden, self.head_weight, self.head_bias)
        cap = self.config.logit_soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def hidden(
        self,
        ids: Tensor,
        *,
        cache: Cache | None = None,
        slots: Tensor | None = None,
        counts: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        mask: Tensor | None = None,
        types: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        project: Project = apart,
    ) -> Tensor:
        """What the head is applied to, [batch, seq, hidden], for `ids` [batch, seq] int64.

        Without a cache each row is a whole sequence. `documents` [batch, seq] int64 numbers the documents packed into a
        row, one after another: each is read as if it stood alone; negative where there is padding. `positions` [batch,
        seq] replaces 0, 1, 2, .. in what is added to embeddings or rotates heads. `mask` [batch, seq] bool is False for
        padding. `types` [batch, seq] are the segments of an encoder with `token_types`.

        An encoder-decoder reads `source` [batch, source] int64, in which `source_mask` is False for padding; with a
        cache the source is given in a sequence's first step only.

        With a cache row i holds the next tokens of slot `slots[i]` ([batch] int64, all different; without `slots`, of
        slot i): prefill is a call on empty slots, decoding is a call with seq = 1. Rows may be at different lengths.
        Prompts of different lengths prefill together when padded on the right with any token: `counts` [batch] says
        how many tokens of each row are real, and what the model says after a padding token means nothing. The slots'
        lengths grow by `counts` (by seq without it).

        `project` says how linear maps of one input are computed.

        Raises ValueError for a token outside the vocabulary, a sequence longer than the context or the cache, an
        argument of the wrong shape, and arguments that do not go together.
        """
        given = Inputs(
            cache=cache,
            slots=slots,
            counts=counts,
            positions=positions,
            documents=documents,
            mask=mask,
            types=types,
            source=source,
            source_mask=source_mask,
        )
        check(self.config, ids, given, training=self.training)
        encoded = None if source is None else self.encode(source, source_mask)
        batch, seq = ids.shape
        step = None if cache is None else cache.begin(batch, seq, slots, counts, _source_mask(encoded, source_mask))
        if step is not None:
            positions, state = step.positions, self._pass_of(step, project, encoded)
        else:
            if positions is None:
                count = torch.arange(seq, device=ids.device)
                positions = count if documents is None else document_positions(documents)
            state = Pass(
                visibility=self._visibility(ids, documents, mask),
                rotary=None if self.rotary is None else self.rotary(positions),
                documents=documents,
                real=mask if documents is None or self.config.mixture is None else _real(documents, mask),
                source=encoded,
                kernel=self.kernel,
                project=project,
            )
            if encoded is not None:
                state.visibility["source"] = between(seq, encoded.shape[1], source_mask, ids.device)
        x = _through(self.layers, self._embed(ids, positions, types), state)
        if step is not None:
            step.commit()
        self.routing = (*(self.routing if encoded is not None else ()), *state.routing)
        return self._finish(x)

    def advance(self, ids: Tensor, step: CacheStep, project: Project = apart) -> Tensor:
        """What `hidden` does in a step of decoding between its checks and the commit, for a compiler to trace."""
        state = self._pass_of(step, project)
        return self._finish(_through(self.layers, self._embed(ids, step.positions, None), state))

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """States of the encoder: [batch, source] int64 -> [batch, source, hidden]."""
        if self.encoder is None:
            raise ValueError(f"a model of kind {self.config.kind} reads no source")
        check_rows(self.config, source, {"source_mask": source_mask}, training=self.training, name="source")
        positions = torch.arange(source.shape[1], device=source.device)
        kinds = dict.fromkeys(self.config.encoder_kinds)
        seen = {kind: self._seen(kind, source, causal=False, mask=source_mask) for kind in kinds}
        state = Pass(
            visibility={kind: self._with_bias(each, self.encoder.relative) for kind, each in seen.items()},
            rotary=None if self.rotary is None else self.rotary(positions),
            real=source_mask,
            kernel=self.kernel,
        )
        x = _through(self.encoder.layers, self._embed(source, positions, None), state)
        self.routing = tuple(state.routing)
        return x if self.encoder.norm is None else self.encoder.norm(x)

    def _pass_of(self, step: CacheStep, project: Project, encoded: Tensor | None = None) -> Pass:
        """The pass of a step over the cache; `encoded` is a source that comes with it."""
        seen: dict[LayerKind | Literal["source"], Visibility] = {
            kind: self._with_bias(step.visibility(kind), self.relative) for kind in self._kinds
        }
        if self.encoder is not None:
            seen["source"] = step.visibility("source")
        return Pass(
            visibility=seen,
            rotary=None if self.rotary is None else self.rotary(step.positions),
            step=step,
            source=encoded,
            kernel=self.kernel,
            project=project,
        )

    def _visibility(
        self, ids: Tensor, documents: Tensor | None, mask: Tensor | None
    ) -> dict[LayerKind | Literal["source"], Visibility]:
        """What each kind of the decoder's (or only) layers sees of whole sequences."""
        seen = {kind: self._seen(kind, ids, causal=self.causal, documents=documents, mask=mask) for kind in self._kinds}
        return {kind: self._with_bias(each, self.relative) for kind, each in seen.items()}

    @property
    def _kinds(self) -> list[LayerKind]:
        """Of the layers that see other tokens."""
        return [kind for kind in dict.fromkeys(self.config.layer_kinds) if kind != "state_space"]

    def _seen(
        self,
        kind: LayerKind,
        ids: Tensor,
        *,
        causal: bool,
        documents: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Visibility:
        window = self.config.window if kind == "window" else None
        return within(
            ids.shape[1],
            causal=causal,
            window=window,
            global_tokens=self.config.global_tokens if window else 0,
            documents=documents,
            mask=mask,
            device=ids.device,
        )

    def _with_bias(self, seen: Visibility, relative: RelativeBias | None) -> Visibility:
        """Scores that depend on the distance: T5's table, or ALiBi's slopes."""
        if relative is not None:
            return replace(seen, bias=relative(seen.distances), plain=False)
        if self.config.positions == "alibi":
            return replace(seen, slopes=alibi_slopes(self.config.heads, seen.query_positions.device), plain=False)
        return seen

    def _embed(self, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        x = self.embedding(ids)
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        elif self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, self.config.hidden_size).to(x.dtype)
        if self.type_embedding is not None:
            x = x + self.type_embedding(torch.zeros_like(ids) if types is None else types)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return functional.dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def _finish(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        if self.head_transform is not None:
            x = self.head_transform(x)
        return x if self.config.logit_scale == 1.0 else x * self.config.logit_scale


def _through(layers: Iterable[nn.Module], x: Tensor, state: Pass) -> Tensor:
    for layer in layers:
        x = layer(x, state)
    return x


def _real(documents: Tensor, mask: Tensor | None) -> Tensor:
    """[batch, seq] bool, False for padding by either."""
    return documents >= 0 if mask is None else mask & (documents >= 0)


def _source_mask(encoded: Tensor | None, mask: Tensor | None) -> Tensor | None:
    if encoded is None or mask is not None:
        return mask
    return torch.ones(encoded.shape[:2], dtype=torch.bool, device=encoded.device)
