"""Layers that process each token by itself: linear maps, normalization and the feed-forward network."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sluice.model.architecture.config import GATED, FeedForwardKind, ModelConfig


class LinearBackend(Protocol):
    """Computes linear maps that share an input. Training uses `separate`; for decoding see linear_backends."""

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        """Apply each map to x: [.., in] -> a tuple of [.., out]."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """functional.linear, for a weight that belongs to no nn.Linear, such as a tied head."""


class _Separate:
    """Calls each map as a module."""

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        return tuple(each(x) for each in maps)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)


separate = _Separate()


def make_norm(config: ModelConfig, size: int | None = None) -> nn.Module:
    """The configured normalization over `size` entries (default: the model's width)."""
    size = size or config.hidden_size
    if config.norm == "layer":
        return nn.LayerNorm(size, config.norm_eps, bias=config.norm_bias)
    return RMSNorm(size, config.norm_eps, plus_one=config.norm_plus_one)


class RMSNorm(nn.Module):
    """`x / rms(x) * weight` over the last dimension, without mean and bias (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float, *, plus_one: bool = False) -> None:
        """`plus_one`: the weight is stored less one, as in Gemma."""
        super().__init__()
        self.eps, self.plus_one = eps, plus_one
        self.weight = nn.Parameter(torch.zeros(size) if plus_one else torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]; statistics are float32 whatever the dtype of x."""
        if self.plus_one:
            # In float32 up to the product: in bfloat16 one and a small weight lose that weight's digits.
            wide = torch.promote_types(x.dtype, torch.float32)
            normed: Tensor = _RMSNorm.apply(x.to(wide), 1 + self.weight.to(wide), self.eps)
            return normed.to(x.dtype)
        if torch.is_grad_enabled():
            return _RMSNorm.apply(x, self.weight, self.eps)
        # In two thirds of torch's operations: for a single token each operation costs the same.
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        start = torch.scalar_tensor(self.eps, dtype=wide, device=x.device)
        scale = torch.addcmul(start, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).to(x.dtype).mul_(self.weight)


class _RMSNorm(torch.autograd.Function):
    """Explicit backward pass: on CPUs torch differentiates the norm as a chain of operations, each a pass over memory.

    Forward and backward together take 0.6 of torch's time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = torch.rsqrt(norm.square() / x.shape[-1] + eps)  # 1 / rms, [..., 1]
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        narrow, weights, size = x.dtype, weight.dtype, x.shape[-1]
        x, weight, upstream = x.to(scale.dtype), weight.to(scale.dtype), upstream.to(scale.dtype)
        product = (upstream * x).reshape(-1, size)
        weight_gradient = scale.view(-1) @ product
        # d scale / d x = -scale^3 x / size, reached through every entry of the row.
        pull = (product @ weight).view(scale.shape) * scale.pow(3) / -size
        gradient = (upstream * weight).mul_(scale).addcmul_(x, pull)
        return gradient.to(narrow), weight_gradient.to(weights), None


class FeedForward(nn.Module):
    """`down(activation(up(x)))`; gated kinds `down(activation(gate(x)) * up(x))` (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig, width: int | None = None) -> None:
        """`width` overrides the configured inner width."""
        super().__init__()
        width, bias = width or config.feedforward_width, config.feedforward_bias
        self.kind = config.feedforward
        # Two matrices, not one fused one: its halves would be strided, which costs a CPU more than a second product.
        self.gate = nn.Linear(config.hidden_size, width, bias=bias) if self.kind in GATED else None
        self.up = nn.Linear(config.hidden_size, width, bias=bias)
        self.down = nn.Linear(width, config.hidden_size, bias=bias)

    def forward(self, x: Tensor, linear: LinearBackend = separate) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        maps = (self.up,) if self.gate is None else (self.gate, self.up)
        *gate, up = linear(x, *maps)
        (y,) = linear(activate(self.kind, up, *gate), self.down)
        return y


def activate(kind: FeedForwardKind, up: Tensor, gate: Tensor | None = None) -> Tensor:
    """Activation between the matrices: [..., width] -> [..., width]; `gate` for the gated kinds."""
    match kind:
        case "relu":
            return functional.relu(up)
        case "gelu":
            return functional.gelu(up)
        case "gelu_tanh":
            return functional.gelu(up, approximate="tanh")
    assert gate is not None, f"{kind} is gated"
    match kind:
        case "geglu":
            return functional.gelu(gate) * up
        case "geglu_tanh":
            return functional.gelu(gate, approximate="tanh") * up
        case "swiglu":
            return functional.silu(gate) * up
