"""Attention with rotary positions, over the sequence itself or over another one (cross-attention)."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sluice.model.architecture.config import LayerKind, TransformerConfig
from sluice.model.architecture.kernels import AttentionCall, attend
from sluice.model.architecture.pointwise import RMSNorm
from sluice.model.architecture.rope_scaling_config import RopeScaling

if TYPE_CHECKING:
    from sluice.model.architecture.attention_mask import AttentionMask
    from sluice.model.architecture.block import ForwardContext


class Attention(nn.Module):
    """`heads / kv_heads` query heads share each key-value head (GQA; Ainslie et al., arXiv 2305.13245)."""

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

    def forward(self, x: Tensor, context: "ForwardContext") -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        queries, keys, values = map(self._split_heads, context.linear(x, self.query, self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        if context.rotary is not None:
            queries, keys = rotate_both(queries, keys, *context.rotary)
        if context.step is not None:
            keys, values = context.step.extend(self.layer, keys, values)
        return self._attend(queries, keys, values, context.masks[self.kind], context)

    def _split_heads(self, x: Tensor) -> Tensor:
        """[batch, seq, heads * head_size] -> [batch, seq, heads, head_size]."""
        return x.view(*x.shape[:2], -1, self.head_size)

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: "AttentionMask", context: "ForwardContext"
    ) -> Tensor:
        """[batch, seq, heads, head_size] over keys and values -> [batch, seq, hidden]."""
        call = AttentionCall(
            queries,
            keys,
            values,
            mask,
            scale=self.scale,
            soft_cap=self.soft_cap,
            dropout=self.dropout if self.training else 0.0,
        )
        mixed = attend(call, kernel=context.kernel)
        (y,) = context.linear(mixed.flatten(2), self.output)
        return y


class CrossAttention(Attention):
    """Queries of the decoder attend to the encoder's states; without positions, as in the Transformer and in T5."""

    def forward(self, x: Tensor, context: "ForwardContext") -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        if context.source is None:
            assert context.step is not None, "a decoder without a source and without a cache"
            keys, values = context.step.source(self.layer)
        else:
            keys, values = map(self._split_heads, context.linear(context.source, self.key, self.value))
            if self.key_norm is not None:
                keys = self.key_norm(keys)
            if context.step is not None:
                keys, values = context.step.store_source(self.layer, keys, values)
        (queries,) = map(self._split_heads, context.linear(x, self.query))
        if self.query_norm is not None:
            queries = self.query_norm(queries)
        return self._attend(queries, keys, values, context.masks["source"], context)


class RotaryEmbedding(nn.Module):
    """Rotary embedding (Su et al., arXiv 2104.09864) in the half-rotation layout of Hugging Face Llama.

    Caches the cosine and sine of every position once per device, always in float32. The tables are not buffers: they
    follow from the configuration, so checkpoints do not store them, and casting a model to bfloat16 must not round its
    angles.
    """

    def __init__(self, head_size: int, context: int, theta: float, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        self.head_size, self.context, self.theta, self.scaling = head_size, context, theta, scaling
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[..., seq] int64 -> cosine and signed sine for `rotate`, each [..., seq, 1, head_size] float32."""
        if positions.device not in self._tables:
            frequencies = rope_frequencies(self.head_size, self.theta, self.context, self.scaling, positions.device)
            angles = torch.outer(torch.arange(self.context, device=positions.device).float(), frequencies)
            factor = rope_attention_factor(self.scaling)
            cosine, sine = angles.cos() * factor, angles.sin() * factor
            self._tables[positions.device] = torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)
        cosine, sine = self._tables[positions.device]
        return cosine[positions].unsqueeze(-2), sine[positions].unsqueeze(-2)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate each pair (i, i + head_size/2) of [batch, seq, heads, head_size] by its position's angle."""
    # Rolling by half aligns every entry with its partner; the sine table carries the sign of the rotation.
    return (x * cosine).add_(x.roll(x.shape[-1] // 2, dims=-1) * sine).to(x.dtype)


def rotate_both(queries: Tensor, keys: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """`rotate` queries [batch, seq, heads, head_size] and keys [batch, seq, kv_heads, head_size]."""
    if queries.shape[1] > 1:
        return rotate(queries, cosine, sine), rotate(keys, cosine, sine)
    # Decoding: for one token, copying both into one tensor is cheaper than launching every operation twice.
    together = rotate(torch.cat((queries, keys), dim=2), cosine, sine)
    rotated_queries, rotated_keys = torch.split_with_sizes(together, [queries.shape[2], keys.shape[2]], dim=2)
    return rotated_queries, rotated_keys


def rope_frequencies(
    head_size: int, theta: float, context: int, scaling: RopeScaling | None, device: torch.device | str = "cpu"
) -> Tensor:
    """Angle per position for each pair of entries, [head_size / 2] float32."""
    exponents = torch.arange(0, head_size, 2, device=device).float() / head_size
    if scaling is None:
        return theta**-exponents
    match scaling.kind:
        case "linear":
            return theta**-exponents / scaling.factor
        case "ntk":
            # The theta for which the slowest pair turns 1/factor as fast and the fastest as before.
            return (theta * scaling.factor ** (head_size / (head_size - 2))) ** -exponents
        case "yarn":
            # Fast pairs keep their frequency, slow pairs are interpolated, with a ramp in between (arXiv 2309.00071).
            original = scaling.trained_context(context)

            def pair_with(rotations: float) -> float:
                return head_size * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

            first = max(math.floor(pair_with(scaling.beta_fast)), 0)
            last = min(math.ceil(pair_with(scaling.beta_slow)), head_size - 1)
            pairs = torch.arange(head_size // 2, dtype=torch.float32, device=device)
            interpolated = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
            frequencies = theta**-exponents
            return frequencies / scaling.factor * interpolated + frequencies * (1 - interpolated)


def rope_attention_factor(scaling: RopeScaling | None) -> float:
    """Factor of cosine and sine: YaRN's temperature, which compensates for flatter scores; otherwise 1."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    return scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0
