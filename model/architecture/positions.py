"""Rotary position embedding (Su et al., arXiv 2104.09864), in the half-rotation layout of Hugging Face Llama."""

import torch
from torch import Tensor, nn


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
        """[..., seq] int64 -> cosine and signed sine for `rotate`, each [..., seq, 1, head_size] float32."""
        if positions.device not in self._tables:
            exponents = torch.arange(0, self.head_size, 2, device=positions.device).float() / self.head_size
            angles = torch.outer(torch.arange(self.context, device=positions.device).float(), self.theta**-exponents)
            cosine, sine = angles.cos(), angles.sin()
            self._tables[positions.device] = torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)
        cosine, sine = self._tables[positions.device]
        return cosine[positions].unsqueeze(-2), sine[positions].unsqueeze(-2)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns each pair (i, i + head_size/2) of [batch, seq, heads, head_size] by its position's angle."""
    # Rolled by half, every entry meets its partner; the sign of the rotation is in the sine's table.
    return (x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * sine).to(x.dtype)
