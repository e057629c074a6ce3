"""Rotary position embedding (Su et al., arXiv 2104.09864), in the half-rotation layout of Hugging Face Llama."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RotaryEmbedding(nn.Module):
    """Holds the cosine and sine of every position; computed once a device, always in float32.

    The tables are no buffers: they follow from the config, so they have no place in a checkpoint, and a model cast to
    bfloat16 must not round its angles.
    """

    def __init__(self, head_size: int, context: int, theta: float) -> None:
        super().__init__()
        self.head_size, self.context, self.theta = head_size, context, theta
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[..., seq] int64 -> cosine and sine, each [..., seq, 1, head_size] float32."""
        if positions.device not in self._tables:
            exponents = torch.arange(0, self.head_size, 2, device=positions.device).float() / self.head_size
            angles = torch.outer(torch.arange(self.context, device=positions.device).float(), self.theta**-exponents)
            angles = torch.cat((angles, angles), dim=-1)
            self._tables[positions.device] = angles.cos(), angles.sin()
        cosine, sine = self._tables[positions.device]
        return cosine[positions].unsqueeze(-2), sine[positions].unsqueeze(-2)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, count: int) -> Tensor:
    """Turns each pair (i, i + head_size/2) of the first `count` heads by its position's angle.

    [batch, seq, heads, head_size] -> the same; heads after the first `count` (the values') pass as they are.
    """
    return _Rotation.apply(x, cosine, sine, count)


class _Rotation(torch.autograd.Function):
    """The gradient of a rotation is the rotation back, so nothing but the angles is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.count = count
        return _turn(x, cosine, sine, count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turn(upstream, cosine, -sine, ctx.count), None, None, None


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, count: int) -> Tensor:
    half = x.shape[-1] // 2
    heads = x[:, :, :count].float()
    turned = heads * cosine
    turned[..., :half].addcmul_(heads[..., half:], sine[..., :half], value=-1)
    turned[..., half:].addcmul_(heads[..., :half], sine[..., half:])
    result = torch.empty_like(x)
    result[:, :, :count] = turned
    result[:, :, count:] = x[:, :, count:]
    return result
