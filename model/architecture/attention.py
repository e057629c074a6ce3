"""Grouped-query attention (Ainslie et al., arXiv 2305.13245) with rotary positions."""

from torch import Tensor, nn
from torch.nn import functional

from model.architecture.cache import CacheStep
from model.architecture.config import TransformerConfig
from model.architecture.positions import rotate


class Attention(nn.Module):
    """Causal self-attention; `heads / kv_heads` query heads share each key-value head."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.head_size = layer, config.heads, config.kv_heads, config.head_size
        # One product for queries, keys and values: rows are [query heads | key heads | value heads].
        self.qkv = nn.Linear(config.hidden_size, (config.heads + 2 * config.kv_heads) * config.head_size, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: CacheStep | None = None) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]; `rotary` from RotaryEmbedding for the rows' positions."""
        batch, seq, hidden = x.shape
        qkv = self.qkv(x).view(batch, seq, -1, self.head_size)
        qkv = rotate(qkv, *rotary, count=self.heads + self.kv_heads).transpose(1, 2)
        queries, keys, values = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        mask = None
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
            mask = cache.mask
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=self.heads != self.kv_heads
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, seq, hidden))
