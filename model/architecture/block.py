"""One layer of the residual stream: x + attention(norm(x)), then x + feedforward(norm(x))."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.attention import Attention, CrossAttention
from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.config import LayerKind, NormPosition, TransformerConfig
from sluice.model.architecture.moe import MoE, Routing
from sluice.model.architecture.pointwise import FeedForward, LinearBackend, make_norm, separate
from sluice.model.architecture.state_space import StateSpace

if TYPE_CHECKING:
    from sluice.model.architecture.cache import CacheStep
    from sluice.model.architecture.kernels import KernelName


@dataclass
class ForwardContext:
    """Inputs that all layers of a stack share in one forward pass, and the routing that its MoE layers report."""

    masks: dict[LayerKind | Literal["source"], AttentionMask]
    """Attention mask by kind of layer; `source` for cross-attention."""
    rotary: dict[LayerKind, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Cosine and sine of the rows' positions by kind of layer, from RotaryEmbedding."""
    documents: Tensor | None = None
    """[batch, seq] int64: state space layers reset at document borders."""
    real: Tensor | None = None
    """[batch, seq] bool, False for padding, which MoE losses leave out; None: all tokens are real."""
    step: "CacheStep | None" = None
    source: Tensor | None = None
    """[batch, source, hidden]: states of the encoder; None where the cache holds their keys and values."""
    kernel: "KernelName | None" = None
    """Attention kernel to use; None: the best one that supports the call."""
    linear: LinearBackend = separate
    """How linear maps that share an input are computed."""
    routing: list[Routing] = field(default_factory=list)
    """Routing of this pass's MoE layers, in the order of the layers."""


class _Layer(nn.Module):
    """Parts that all kinds of layers share."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dropout, self.residual_scale = config.dropout, config.residual_scale

    def update(self, x: Tensor) -> Tensor:
        """Update of the residual stream by a sublayer's output: scaled, and with dropout in training."""
        x = functional.dropout(x, self.dropout) if self.training and self.dropout else x
        return x if self.residual_scale == 1.0 else x * self.residual_scale


class TransformerBlock(_Layer):
    """Pre-norm transformer layer: attention, cross-attention if the stack reads a source, feed-forward network."""

    def __init__(self, config: TransformerConfig, layer: int, *, encoder: bool = False) -> None:
        super().__init__(config)
        kind = (config.encoder_kinds if encoder else config.layer_kinds)[layer]
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer, kind)
        self.cross_attention: CrossAttention | None = None
        if config.kind == "encoder-decoder" and not encoder:
            self.cross_attention_norm = make_norm(config)
            self.cross_attention = CrossAttention(config, layer, kind)
        self.feedforward_norm = make_norm(config)
        self.feedforward = MoE(config) if config.mixture else FeedForward(config)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        x = x + self.update(self.attention(self.attention_norm(x), context))
        if self.cross_attention is not None:
            x = x + self.update(self.cross_attention(self.cross_attention_norm(x), context))
        return x + self.update(apply_feedforward(self.feedforward, self.feedforward_norm(x), context))


class PostNormBlock(TransformerBlock):
    """The original Transformer's layer, norm(x + f(x)) (Vaswani et al., arXiv 1706.03762)."""

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        x = self.attention_norm(x + self.update(self.attention(x, context)))
        if self.cross_attention is not None:
            x = self.cross_attention_norm(x + self.update(self.cross_attention(x, context)))
        return self.feedforward_norm(x + self.update(apply_feedforward(self.feedforward, x, context)))


class OutputNormBlock(TransformerBlock):
    """Norms of what the sublayers give, x + norm(f(x)) (OLMo 2, arXiv 2501.00656)."""

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        x = x + self.update(self.attention_norm(self.attention(x, context)))
        if self.cross_attention is not None:
            x = x + self.update(self.cross_attention_norm(self.cross_attention(x, context)))
        return x + self.update(self.feedforward_norm(apply_feedforward(self.feedforward, x, context)))


class SandwichNormBlock(TransformerBlock):
    """Norms of what the sublayers read and give, x + norm(f(norm(x))) (Gemma 2, arXiv 2408.00118)."""

    def __init__(self, config: TransformerConfig, layer: int, *, encoder: bool = False) -> None:
        super().__init__(config, layer, encoder=encoder)
        self.attention_output_norm = make_norm(config)
        if self.cross_attention is not None:
            self.cross_attention_output_norm = make_norm(config)
        self.feedforward_output_norm = make_norm(config)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        x = x + self.update(self.attention_output_norm(self.attention(self.attention_norm(x), context)))
        if self.cross_attention is not None:
            read = self.cross_attention_norm(x)
            x = x + self.update(self.cross_attention_output_norm(self.cross_attention(read, context)))
        fed = apply_feedforward(self.feedforward, self.feedforward_norm(x), context)
        return x + self.update(self.feedforward_output_norm(fed))


class ParallelBlock(TransformerBlock):
    """Sublayers that read one stream, x + attention(norm(x)) + feedforward(norm(x)) (GPT-NeoX, arXiv 2204.06745)."""

    def __init__(self, config: TransformerConfig, layer: int, *, encoder: bool = False) -> None:
        super().__init__(config, layer, encoder=encoder)
        self.shares_norm = config.sublayers == "parallel_one_norm"
        if self.shares_norm:
            del self.feedforward_norm

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        normed = self.attention_norm(x)
        attended = self.update(self.attention(normed, context))
        read = normed if self.shares_norm else self.feedforward_norm(x)
        return x + attended + self.update(apply_feedforward(self.feedforward, read, context))


class StateSpaceBlock(_Layer):
    """Pre-norm Mamba-2 layer: a state space mixer and, if configured, a feed-forward network."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__(config)
        self.layer = layer
        self.state_space_norm = make_norm(config)
        self.state_space = StateSpace(config)
        self.feedforward: MoE | FeedForward | None = None
        if config.state_space_feedforward:
            self.feedforward_norm = make_norm(config)
            self.feedforward = MoE(config) if config.mixture else FeedForward(config)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        normed = self.state_space_norm(x)
        if context.step is None:
            mixed, _ = self.state_space(normed, documents=context.documents)
        else:
            before = context.step.state(self.layer)
            mixed, after = self.state_space(normed, initial=before, counts=context.step.counts)
            context.step.store_state(self.layer, after)
        x = x + self.update(mixed)
        if self.feedforward is None:
            return x
        return x + self.update(apply_feedforward(self.feedforward, self.feedforward_norm(x), context))


def apply_feedforward(feedforward: FeedForward | MoE, x: Tensor, context: ForwardContext) -> Tensor:
    """Output of a dense network or a mixture of experts, whose routing is added to the context."""
    if isinstance(feedforward, MoE):
        mixed, routing = feedforward(x, context.real)
        context.routing.append(routing)
        return mixed
    return feedforward(x, context.linear)


def make_block(config: TransformerConfig, layer: int, *, encoder: bool = False) -> nn.Module:
    """The layer of this number in a decoder, in the only stack, or in the encoder of an encoder-decoder."""
    if not encoder and config.layer_kinds[layer] == "state_space":
        return StateSpaceBlock(config, layer)
    if config.sublayers != "sequential":
        return ParallelBlock(config, layer, encoder=encoder)
    return _BLOCKS[config.norm_position](config, layer, encoder=encoder)


_BLOCKS: dict[NormPosition, type[TransformerBlock]] = {
    "pre": TransformerBlock,
    "post": PostNormBlock,
    "output": OutputNormBlock,
    "sandwich": SandwichNormBlock,
}
