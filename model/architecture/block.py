"""Layers: a mixer of tokens (attention or state space) and a feed-forward network, each added to the stream."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.attention import Attention, CrossAttention
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.feedforward import FeedForward
from sluice.model.architecture.moe import Mixture
from sluice.model.architecture.pass_state import Pass
from sluice.model.architecture.pointwise import make_norm
from sluice.model.architecture.state_space import StateSpace


class Residual(nn.Module):
    """What layers have in common: a sublayer's output is added to its input, with the norm before or after."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.post, self.dropout = config.norm_position == "post", config.dropout

    def add(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        if self.post:
            return norm(x + self.drop(sublayer(x)))
        return x + self.drop(sublayer(norm(x)))

    def drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout) if self.training and self.dropout else x


class Block(Residual):
    """Attention, then cross-attention where the stack reads a source, then the feed-forward network."""

    def __init__(self, config: TransformerConfig, layer: int, *, encoder: bool = False) -> None:
        super().__init__(config)
        kind = (config.encoder_kinds if encoder else config.layer_kinds)[layer]
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer, kind)
        crosses = config.kind == "encoder-decoder" and not encoder
        self.cross_attention_norm = make_norm(config) if crosses else None
        self.cross_attention = CrossAttention(config, layer, kind) if crosses else None
        self.feedforward_norm = make_norm(config)
        self.feedforward = Mixture(config) if config.mixture else FeedForward(config)

    def forward(self, x: Tensor, state: Pass) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        x = self.add(x, self.attention_norm, lambda y: self.attention(y, state))
        if self.cross_attention is not None and self.cross_attention_norm is not None:
            cross_attention = self.cross_attention
            x = self.add(x, self.cross_attention_norm, lambda y: cross_attention(y, state))
        return self.add(x, self.feedforward_norm, lambda y: feed(self.feedforward, y, state))


class StateSpaceBlock(Residual):
    """A state space mixer, and a feed-forward network where the configuration asks for one."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__(config)
        self.layer = layer
        self.state_space_norm = make_norm(config)
        self.state_space = StateSpace(config)
        self.feedforward_norm, self.feedforward = None, None
        if config.state_space_feedforward:
            self.feedforward_norm = make_norm(config)
            self.feedforward = Mixture(config) if config.mixture else FeedForward(config)

    def forward(self, x: Tensor, state: Pass) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        x = self.add(x, self.state_space_norm, lambda y: self._mix(y, state))
        if self.feedforward is None or self.feedforward_norm is None:
            return x
        feedforward = self.feedforward
        return self.add(x, self.feedforward_norm, lambda y: feed(feedforward, y, state))

    def _mix(self, x: Tensor, state: Pass) -> Tensor:
        if state.step is None:
            mixed, _ = self.state_space(x, documents=state.documents)
            return mixed
        mixed, after = self.state_space(x, initial=state.step.state(self.layer), counts=state.step.counts)
        state.step.store_state(self.layer, after)
        return mixed


def feed(feedforward: FeedForward | Mixture, x: Tensor, state: Pass) -> Tensor:
    """The network's output; what a mixture says of its routing goes into the pass."""
    if isinstance(feedforward, FeedForward):
        return feedforward(x, state.project)
    mixed, routing = feedforward(x, state.real)
    state.routing.append(routing)
    return mixed


def make_block(config: TransformerConfig, layer: int) -> nn.Module:
    """Layer of a decoder, or of the only stack."""
    if config.layer_kinds[layer] == "state_space":
        return StateSpaceBlock(config, layer)
    return Block(config, layer)
