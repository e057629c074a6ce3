"""The Mamba-2 mixer: a short convolution, a selective scan and a gated norm (Dao and Gu, arXiv 2405.21060).

Parameters have the names and layout of transformers' Mamba2Mixer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.config import ModelConfig
from sluice.model.architecture.scan import chunked_scan, recurrent_step


@dataclass(frozen=True)
class SequenceState:
    """Recurrent state of one layer after the tokens so far."""

    conv: Tensor
    """[batch, channels, conv_width - 1]: last inputs of the convolution, oldest first; zeros before the first token."""
    state: Tensor
    """[batch, heads, head_size, state_size], float32 whatever the model's dtype (float64 in a float64 model)."""


class GatedNorm(nn.Module):
    """RMSNorm of `x * silu(gate)`, separately in each of `groups` groups."""

    def __init__(self, size: int, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """[..., size] each -> [..., size] in the dtype of `gate`; statistics in the dtype of x, at least float32."""
        gated = (x * functional.silu(gate.to(x.dtype))).unflatten(-1, (self.groups, -1))
        scale = torch.rsqrt(gated.square().mean(-1, keepdim=True) + self.eps)
        return (gated * scale).flatten(-2).to(gate.dtype) * self.weight


class StateSpace(nn.Module):
    """Token mixer with a recurrent state of fixed size instead of attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = config.state_space
        assert shape is not None, "a state space layer needs config.state_space"
        self.inner = config.hidden_size * shape.expand
        self.head_size, self.heads = shape.head_size, self.inner // shape.head_size
        self.groups, self.state_size = shape.groups, shape.state_size
        self.width, self.chunk = shape.conv_width, shape.chunk
        self.channels = self.inner + 2 * self.groups * self.state_size
        self.in_proj = nn.Linear(config.hidden_size, self.inner + self.channels + self.heads, bias=shape.bias)
        # Stores the weights only; `_convolve` computes, because it handles documents and states.
        self.conv1d = nn.Conv1d(self.channels, self.channels, self.width, groups=self.channels, bias=shape.conv_bias)
        self.dt_bias = nn.Parameter(torch.zeros(self.heads))
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedNorm(self.inner, self.groups, config.norm_eps)
        self.out_proj = nn.Linear(self.inner, config.hidden_size, bias=shape.bias)

    def forward(
        self,
        x: Tensor,
        *,
        documents: Tensor | None = None,
        initial: SequenceState | None = None,
        counts: Tensor | None = None,
    ) -> tuple[Tensor, SequenceState]:
        """[batch, seq, hidden] -> [batch, seq, hidden] and the state after each row's last real token.

        `initial` is the state that the rows continue. `counts` [batch] int64: a row's real tokens; the rest is padding
        on the right, which changes no state and whose outputs are undefined. `documents` [batch, seq] int64: the state
        resets where the number changes; a row's first document continues `initial`.
        """
        self._check(x, documents, initial, counts)
        seq, real, segments = x.shape[1], None, None
        # Reading counts on the CPU is free; reading others would wait for the device.
        if counts is not None and not (counts.device.type == "cpu" and bool((counts == seq).all())):
            real = torch.arange(seq, device=x.device) < counts.to(x.device)[:, None]  # [batch, seq], False for padding
        if documents is not None and seq > 1:
            # Numbers the documents from 0 in the order of each row; padding belongs to the last real token's.
            borders = documents[:, 1:] != documents[:, :-1]
            borders = borders if real is None else borders & real[:, 1:]
            segments = functional.pad(borders.long().cumsum(-1), (1, 0))
        gate, inputs, dt = self.in_proj(x).split([self.inner, self.channels, self.heads], dim=-1)
        # Inputs of the convolution before the first token, [batch, conv_width - 1, channels].
        if initial is None:
            first = inputs.new_zeros(len(inputs), self.width - 1, self.channels)
        else:
            first = initial.conv.transpose(1, 2).to(inputs.dtype)
        history = torch.cat([first, inputs], dim=1)
        # Without autocast, which would compute the state's products in a narrower dtype.
        with torch.autocast(x.device.type, enabled=False):
            mixed, state = self._scan(self._convolve(history, segments), dt, real, segments, initial)
            mixed = self.norm(mixed, gate)
        last = self._last(history, None if real is None else counts, segments)
        return self.out_proj(mixed), SequenceState(last, state)

    def _scan(
        self, x: Tensor, dt: Tensor, real: Tensor | None, segments: Tensor | None, initial: SequenceState | None
    ) -> tuple[Tensor, Tensor]:
        """Convolved [batch, seq, channels] and raw steps [batch, seq, heads] -> [batch, seq, inner] and last state."""
        dt = functional.softplus(dt.to(x.dtype) + self.dt_bias.to(x.dtype))
        if real is not None:
            dt = dt.masked_fill(~real[..., None], 0)
        A = -self.A_log.to(x.dtype).exp()
        x, B, C = x.split([self.inner, *[self.groups * self.state_size] * 2], dim=-1)
        x = x.unflatten(-1, (self.heads, self.head_size))
        B, C = (tensor.unflatten(-1, (self.groups, self.state_size)) for tensor in (B, C))
        if initial is not None and x.shape[1] == 1:
            y, state = recurrent_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state=initial.state)
            y = y[:, None]
        else:
            before = None if initial is None else initial.state
            y, state = chunked_scan(x, dt, A, B, C, chunk=self.chunk, initial=before, segments=segments)
        return (y + x * self.D.to(x.dtype)[:, None]).flatten(-2), state

    def _convolve(self, history: Tensor, segments: Tensor | None) -> Tensor:
        """[batch, conv_width - 1 + seq, channels] -> silu of the causal convolution [batch, seq, channels].

        At least float32. A sum of shifted views, one per tap: channels stay last, and document borders mask taps.
        """
        history = history.to(torch.promote_types(history.dtype, torch.float32))
        taps = self.conv1d.weight.to(history.dtype)[:, 0].unbind(-1)
        seq, reach = history.shape[1] - self.width + 1, self.width - 1
        mixed = history[:, reach:] * taps[-1]
        if self.conv1d.bias is not None:
            mixed = mixed + self.conv1d.bias.to(history.dtype)
        seen = None if segments is None else functional.pad(segments, (reach, 0))
        for place, tap in enumerate(taps[:-1]):
            shifted = history[:, place : place + seq]
            if seen is not None and segments is not None:
                shifted = shifted.masked_fill((seen[:, place : place + seq] != segments)[..., None], 0)
            mixed = torch.addcmul(mixed, shifted, tap)
        return functional.silu(mixed)

    def _last(self, history: Tensor, counts: Tensor | None, segments: Tensor | None) -> Tensor:
        """The inputs before each row's next token, [batch, channels, conv_width - 1]; of its last document only."""
        reach = self.width - 1
        seen = None if segments is None else functional.pad(segments, (reach, 0))
        if counts is None:
            last, seen = history[:, -reach:], None if seen is None else seen[:, -reach:]
        else:
            places = counts.to(history.device)[:, None] + torch.arange(reach, device=history.device)
            last = history.gather(1, places[..., None].expand(-1, -1, self.channels))
            seen = None if seen is None else seen.gather(1, places)
        if seen is not None:
            last = last.masked_fill((seen != seen[:, -1:])[..., None], 0)
        return last.transpose(1, 2).contiguous()

    def _check(self, x: Tensor, documents: Tensor | None, initial: SequenceState | None, counts: Tensor | None) -> None:
        batch, seq, _ = x.shape
        if documents is not None and documents.shape != (batch, seq):
            raise ValueError(f"documents of shape {list(documents.shape)} must be [batch, seq] = {[batch, seq]}")
        if counts is not None and counts.shape != (batch,):
            raise ValueError(f"counts of shape {list(counts.shape)} must be [batch] = {[batch]}")
        if initial is not None and len(initial.state) != batch:
            raise ValueError(f"initial holds {len(initial.state)} sequences, and x {batch}: they must be as many")
