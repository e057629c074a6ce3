"""Attention: to the sequence itself, or to another (cross-attention). Heads may share keys and values (GQA, MQA)."""

from typing import Literal

from torch import Tensor, nn

from sluice.model.architecture.config import LayerKind, TransformerConfig
from sluice.model.architecture.kernels import attend
from sluice.model.architecture.pass_state import Pass
from sluice.model.architecture.pointwise import RMSNorm
from sluice.model.architecture.positions import rotate_both


class Attention(nn.Module):
    """`heads / kv_heads` query heads share each key-value head (Ainslie et al., arXiv 2305.13245)."""

    def __init__(self, config: TransformerConfig, layer: int, kind: LayerKind) -> None:
        super().__init__()
        self.layer, self.kind = layer, kind
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_width
        self.scale = config.attention_scale or self.head_size**-0.5
        self.soft_cap, self.dropout = config.attention_soft_cap, config.attention_dropout
        bias = config.attention_bias != "none"
        self.query = nn.Linear(config.hidden_size, self.heads * self.head_size, bias=bias)
        self.key = nn.Linear(config.hidden_size, self.kv_heads * self.head_size, bias=bias)
        self.value = nn.Linear(config.hidden_size, self.kv_heads * self.head_size, bias=bias)
        self.output = nn.Linear(self.heads * self.head_size, config.hidden_size, bias=config.attention_bias == "all")
        self.query_norm = RMSNorm(self.head_size, config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(self.head_size, config.norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, state: Pass) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        queries, keys, values = map(self._by_head, state.project(x, self.query, self.key, self.value))
        queries, keys = self._normed(queries, self.query_norm), self._normed(keys, self.key_norm)
        if state.rotary is not None:
            queries, keys = rotate_both(queries, keys, *state.rotary)
        if state.step is not None:
            keys, values = state.step.extend(self.layer, keys, values)
        return self._mix(queries, keys, values, state, self.kind)

    def _by_head(self, x: Tensor) -> Tensor:
        """[batch, seq, heads * head_size] -> [batch, seq, heads, head_size]."""
        return x.view(*x.shape[:2], -1, self.head_size)

    @staticmethod
    def _normed(x: Tensor, norm: RMSNorm | None) -> Tensor:
        return x if norm is None else norm(x)

    def _mix(
        self, queries: Tensor, keys: Tensor, values: Tensor, state: Pass, seen: LayerKind | Literal["source"]
    ) -> Tensor:
        mixed = attend(
            queries,
            keys,
            values,
            state.visibility[seen],
            scale=self.scale,
            soft_cap=self.soft_cap,
            dropout=self.dropout if self.training else 0.0,
            kernel=state.kernel,
        )
        (y,) = state.project(mixed.flatten(2), self.output)
        return y


class CrossAttention(Attention):
    """Queries of the decoder over the encoder's states; without positions, as in the Transformer and in T5."""

    def forward(self, x: Tensor, state: Pass) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        keys, values = self._source(state)
        (queries,) = state.project(x, self.query)
        return self._mix(self._normed(self._by_head(queries), self.query_norm), keys, values, state, "source")

    def _source(self, state: Pass) -> tuple[Tensor, Tensor]:
        """Keys and values of the source: those of an earlier step, or new ones, kept for later steps."""
        if state.source is None:
            assert state.step is not None, "a decoder without a source and without a cache"
            return state.step.source(self.layer)
        keys, values = map(self._by_head, state.project(state.source, self.key, self.value))
        keys = self._normed(keys, self.key_norm)
        return (keys, values) if state.step is None else state.step.store_source(self.layer, keys, values)
