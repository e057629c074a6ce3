"""Attention with rotary positions, over the sequence itself or over another one (cross-attention)."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sluice.model.architecture.attention_mask import AttentionCall
from sluice.model.architecture.config import LayerKind, TransformerConfig
from sluice.model.architecture.kernels import attend
from sluice.model.architecture.pointwise import RMSNorm
from sluice.model.architecture.rope_scaling_config import RopeScaling

if TYPE_CHECKING:
    from sluice.model.architecture.attention_mask import AttentionMask
    from sluice.model.architecture.block import ForwardContext


class Attention(nn.Module):
    """`heads / kv_heads` query heads share each key-value head (GQA; Ainslie et al., arXiv 2305.13245)."""

    def __init__(self, config: TransformerConfig, layer: int, kind: LayerKind) -> None:
        super().__init__()
        self.layer, self.kind, self.rotates = layer, kind, config.rotates(layer)
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_width
        self.scale = config.attention_scale or self.head_size**-0.5
        self.soft_cap, self.dropout = config.attention_soft_cap, config.attention_dropout
        bias = config.attention_bias != "none"
        self.query = nn.Linear(config.hidden_size, self.heads * self.head_size, bias=bias)
        self.key = nn.Linear(config.hidden_size, self.kv_heads * self.head_size, bias=bias)
        self.value = nn.Linear(config.hidden_size, self.kv_heads * self.head_size, bias=bias)
        self.output = nn.Linear(self.heads * self.head_size, config.hidden_size, bias=config.attention_bias == "all")
        self.query_norm: RMSNorm | None = None
        self.key_norm: RMSNorm | None = None
        self.norms_all_heads = config.qk_norm_over == "all_heads"
        if config.qk_norm:
            widths = (self.heads, self.kv_heads) if self.norms_all_heads else (1, 1)
            self.query_norm, self.key_norm = (
                RMSNorm(width * self.head_size, config.norm_eps, plus_one=config.norm_plus_one) for width in widths
            )

    def forward(self, x: Tensor, context: "ForwardContext") -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        queries, keys, values = map(self._split_heads, context.linear(x, self.query, self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self._normed(self.query_norm, queries), self._normed(self.key_norm, keys)
        if self.rotates:
            queries, keys = rotate_both(queries, keys, *context.rotary[self.kind])
        if context.step is not None:
            keys, values = context.step.extend(self.layer, keys, values)
        return self._attend(queries, keys, values, context.masks[self.kind], context)

    def _split_heads(self, x: Tensor) -> Tensor:
        """[batch, seq, heads * head_size] -> [batch, seq, heads, head_size]."""
        return x.view(*x.shape[:2], -1, self.head_size)

    def _normed(self, norm: RMSNorm, x: Tensor) -> Tensor:
        """Norm of each head of [batch, seq, heads, head_size], or of all heads of a token together."""
        return norm(x.flatten(2)).view_as(x) if self.norms_all_heads else norm(x)

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
                keys = self._normed(self.key_norm, keys)
            if context.step is not None:
                keys, values = context.step.store_source(self.layer, keys, values)
        (queries,) = map(self._split_heads, context.linear(x, self.query))
        if self.query_norm is not None:
            queries = self._normed(self.query_norm, queries)
        return self._attend(queries, keys, values, context.masks["source"], context)


class RotaryEmbedding(nn.Module):
    """Rotary embedding (Su et al., arXiv 2104.09864) in the half-rotation layout of Hugging Face Llama.

    Caches the cosine and sine of every position once per device, always in float32. The tables are not buffers: they
    follow from the configuration, so checkpoints do not store them, and casting a model to bfloat16 must not round its
    angles.
    """

    def __init__(self, size: int, context: int, theta: float, scaling: RopeScaling | None = None) -> None:
        """`size` is the number of entries of a head that rotate."""
        super().__init__()
        self.size, self.context, self.theta, self.scaling = size, context, theta, scaling
        self.follows_length = scaling is not None and scaling.follows_length
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(self, positions: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[..., seq] int64 -> cosine and signed sine for `rotate`, each [..., seq, 1, size] float32.

        `lengths`, [..., 1 or seq] int64, are those of the sequences that the positions belong to, for scaling that
        follows them (default: within the original context).
        """
        device = positions.device
        if self.follows_length:
            frequencies = self._frequencies(device, lengths)
            cosine, sine = self._turns(positions.float().unsqueeze(-1) * frequencies)
            return cosine.unsqueeze(-2), sine.unsqueeze(-2)
        if device not in self._tables:
            positions_of_table = torch.arange(self.context, device=device).float()
            self._tables[device] = self._turns(torch.outer(positions_of_table, self._frequencies(device)))
        cosine, sine = self._tables[device]
        return cosine[positions].unsqueeze(-2), sine[positions].unsqueeze(-2)

    def _frequencies(self, device: torch.device, lengths: Tensor | None = None) -> Tensor:
        return rope_frequencies(self.size, self.theta, self.context, self.scaling, device=device, lengths=lengths)

    def _turns(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """[..., size / 2] -> cosine and signed sine, [..., size]."""
        factor = 1.0 if self.scaling is None else self.scaling.attention_scale(self.context)
        cosine, sine = angles.cos() * factor, angles.sin() * factor
        return torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate each pair (i, i + size/2) of the first `size` entries of each head, [batch, seq, heads, head_size], by its
    position's angle; `size` is that of cosine and sine.
    """
    if (size := cosine.shape[-1]) < x.shape[-1]:
        return torch.cat((rotate(x[..., :size], cosine, sine), x[..., size:]), dim=-1)
    # Rolling by half aligns every entry with its partner; the sine table carries the sign of the rotation.
    return (x * cosine).add_(x.roll(size // 2, dims=-1) * sine).to(x.dtype)


def rotate_both(queries: Tensor, keys: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """`rotate` queries [batch, seq, heads, head_size] and keys [batch, seq, kv_heads, head_size]."""
    if queries.shape[1] > 1:
        return rotate(queries, cosine, sine), rotate(keys, cosine, sine)
    # Decoding: for one token, copying both into one tensor is cheaper than launching every operation twice.
    together = rotate(torch.cat((queries, keys), dim=2), cosine, sine)
    rotated_queries, rotated_keys = torch.split_with_sizes(together, [queries.shape[2], keys.shape[2]], dim=2)
    return rotated_queries, rotated_keys


def rope_frequencies(
    size: int,
    theta: float,
    context: int,
    scaling: RopeScaling | None,
    *,
    device: torch.device | str = "cpu",
    lengths: Tensor | None = None,
) -> Tensor:
    """Angle per position for each pair of entries, [size / 2] float32.

    Scaling that follows the length of the sequence gives a row for each of `lengths` [..], [.., size / 2]; without
    lengths, the frequencies of sequences within the original context.
    """
    exponents = torch.arange(0, size, 2, device=device).float() / size
    if scaling is None:
        return theta**-exponents
    original = scaling.trained_context(context)
    if lengths is None:
        lengths = torch.tensor(original, device=device)
    match scaling.kind:
        case "linear":
            return theta**-exponents / scaling.factor
        case "ntk":
            # The theta for which the slowest pair turns 1/factor as fast and the fastest as before.
            return (theta * scaling.factor ** (size / (size - 2))) ** -exponents
        case "dynamic":
            # As ntk, with a factor that grows from 1 at the original context on.
            stretch = scaling.factor * lengths.clamp(min=original) / original - (scaling.factor - 1)
            return 1 / (theta * stretch ** (size / (size - 2))).unsqueeze(-1) ** exponents
        case "yarn":
            # Fast pairs keep their frequency, slow pairs are interpolated, with a ramp in between (arXiv 2309.00071).
            def pair_with(rotations: float) -> float:
                return size * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

            first = max(math.floor(pair_with(scaling.beta_fast)), 0)
            last = min(math.ceil(pair_with(scaling.beta_slow)), size - 1)
            pairs = torch.arange(size // 2, dtype=torch.float32, device=device)
            interpolated = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
            frequencies = theta**-exponents
            return frequencies / scaling.factor * interpolated + frequencies * (1 - interpolated)
        case "llama3":
            # As yarn, with the ramp in rotations within the original context instead of pairs.
            frequencies = 1 / theta**exponents
            low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
            kept = ((original / (2 * math.pi / frequencies) - low) / (high - low)).clamp(0, 1)
            return (1 - kept) * frequencies / scaling.factor + kept * frequencies
        case "longrope":
            assert scaling.short_factors is not None and scaling.long_factors is not None
            short, long = (torch.tensor(each, device=device) for each in (scaling.short_factors, scaling.long_factors))
            return 1 / (torch.where((lengths > original).unsqueeze(-1), long, short) * theta**exponents)
