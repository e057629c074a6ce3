"""Grouped-query attention (Ainslie et al., arXiv 2305.13245) with rotary positions."""

from torch import Tensor, nn
from torch.nn import functional

from model.architecture import causal
from model.architecture.cache import CacheStep
from model.architecture.config import TransformerConfig
from model.architecture.positions import rotate


class Attention(nn.Module):
    """Causal self-attention; `heads / kv_heads` query heads share each key-value head."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.head_size = layer, config.heads, config.kv_heads, config.head_size
        self.query = nn.Linear(config.hidden_size, config.heads * config.head_size, bias=False)
        self.key = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.value = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.output = nn.Linear(config.heads * config.head_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: CacheStep | None = None) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]; `rotary` from RotaryEmbedding for the rows' positions."""
        batch, seq, _ = x.shape
        queries = rotate(self.query(x).view(batch, seq, self.heads, self.head_size), *rotary)
        keys = rotate(self.key(x).view(batch, seq, self.kv_heads, self.head_size), *rotary)
        values = self.value(x).view(batch, seq, self.kv_heads, self.head_size)
        return self.output(self._mix(queries, keys, values, cache).reshape(batch, seq, -1))

    def _mix(self, queries: Tensor, keys: Tensor, values: Tensor, cache: CacheStep | None) -> Tensor:
        if cache is None and causal.suits(queries):
            return causal.causal_attention(queries, keys, values)
        queries, keys, values = queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
            if cache.mask is not None:
                return self._mix_cached(queries, keys, values, cache.mask)
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, enable_gqa=self.heads != self.kv_heads
        )
        return mixed.transpose(1, 2)

    def _mix_cached(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        # The heads that share keys and values become rows of one query: nothing of the cache is repeated for them.
        batch, heads, seq, size = queries.shape
        group = heads // self.kv_heads
        rows = queries.reshape(batch, self.kv_heads, group * seq, size)
        mixed = functional.scaled_dot_product_attention(rows, keys, values, attn_mask=mask.repeat(1, 1, group, 1))
        return mixed.view(batch, heads, seq, size).transpose(1, 2)
