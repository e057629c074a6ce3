"""How a model knows where a token stands: rotary, sinusoidal, ALiBi's slopes, T5's relative buckets."""

import math

import torch
from torch import Tensor, nn

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.rope_scaling_config import RopeScaling


class RotaryEmbedding(nn.Module):
    """Rotary embedding (Su et al., arXiv 2104.09864) in the half-rotation layout of Hugging Face Llama.

    Holds the cosine and sine of every position; computed once a device, always in float32. The tables are no buffers:
    they follow from the config, so they have no place in a checkpoint, and a model cast to bfloat16 must not round its
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


def rope_frequencies(
    head_size: int, theta: float, context: int, scaling: RopeScaling | None, device: torch.device | str = "cpu"
) -> Tensor:
    """Angle a position of each pair of entries, [head_size / 2] float32."""
    exponents = torch.arange(0, head_size, 2, device=device).float() / head_size
    if scaling is None:
        return theta**-exponents
    match scaling.kind:
        case "linear":
            return theta**-exponents / scaling.factor
        case "ntk":
            # The theta at which the slowest pair turns by 1/factor and the fastest as it did.
            return (theta * scaling.factor ** (head_size / (head_size - 2))) ** -exponents
        case "yarn":
            return _yarn_frequencies(theta**-exponents, head_size, theta, context, scaling)


def _yarn_frequencies(frequencies: Tensor, head_size: int, theta: float, context: int, scaling: RopeScaling) -> Tensor:
    """Pairs that turn often stay, pairs that turn seldom are interpolated, with a ramp between (arXiv 2309.00071)."""
    original = scaling.trained_context(context)

    def pair_with(rotations: float) -> float:
        return head_size * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_with(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_with(scaling.beta_slow)), head_size - 1)
    pairs = torch.arange(head_size // 2, dtype=torch.float32, device=frequencies.device)
    interpolated = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
    return frequencies / scaling.factor * interpolated + frequencies * (1 - interpolated)


def rope_attention_factor(scaling: RopeScaling | None) -> float:
    """What cosine and sine are multiplied by: YaRN's temperature, which makes up for flatter scores."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    return scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns each pair (i, i + head_size/2) of [batch, seq, heads, head_size] by its position's angle."""
    # Rolled by half, every entry meets its partner; the sign of the rotation is in the sine's table.
    return (x * cosine).add_(x.roll(x.shape[-1] // 2, dims=-1) * sine).to(x.dtype)


def rotate_both(queries: Tensor, keys: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """`rotate` of queries [batch, seq, heads, head_size] and of the keys beside them."""
    if queries.shape[1] > 1:
        return rotate(queries, cosine, sine), rotate(keys, cosine, sine)
    # Decoding: of one token the copy costs less than starting every operation twice.
    together = rotate(torch.cat((queries, keys), dim=2), cosine, sine)
    turned, beside = torch.split_with_sizes(together, [queries.shape[2], keys.shape[2]], dim=2)
    return turned, beside


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """[..., seq] int64 -> [..., seq, size] float32: sine and cosine in turn (Vaswani et al., arXiv 1706.03762)."""
    exponents = torch.arange(0, size, 2, device=positions.device).float() / size
    angles = positions[..., None].float() * 10_000.0**-exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def alibi_slopes(heads: int, device: torch.device | str = "cpu") -> Tensor:
    """[heads] float32: a geometric series; where heads is no power of two, every other one of the next power's
    (Press et al., arXiv 2108.12409).
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (head + 1) / power) for head in range(power)]
    between = [2.0 ** (-4.0 * (head + 1) / power) for head in range(0, 2 * power, 2)]
    return torch.tensor([*slopes, *between][:heads], device=device)


class RelativeBias(nn.Module):
    """A learned bias a head and a bucket of distances (T5, arXiv 1910.10683); one table for all layers of a stack."""

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.buckets, self.distance = causal, config.relative_buckets, config.relative_distance
        self.weight = nn.Parameter(torch.empty(config.relative_buckets, config.heads))

    def forward(self, distances: Tensor) -> Tensor:
        """Query's position less key's, [batch, queries, keys] -> [batch, heads, queries, keys]."""
        buckets = relative_buckets(distances, self.buckets, self.distance, causal=self.causal)
        return self.weight[buckets].permute(0, 3, 1, 2)


def relative_buckets(distances: Tensor, buckets: int, furthest: int, *, causal: bool) -> Tensor:
    """Distances to bucket numbers: one each for the near ones, then logarithmically wider up to `furthest`."""
    found = torch.zeros_like(distances)
    if causal:
        distances = distances.clamp(min=0)
    else:
        buckets //= 2
        found += (distances < 0) * buckets
        distances = distances.abs()
    exact = buckets // 2
    wide = (distances.clamp(min=1).float() / exact).log() / math.log(furthest / exact) * (buckets - exact)
    far = (exact + wide.long()).clamp(max=buckets - 1)
    return found + torch.where(distances < exact, distances, far)
