"""Selective scan of Mamba-2, over whole sequences in chunks or one token at a time (Dao and Gu, arXiv 2405.21060).

Each head carries a state h [head_size, state_size] from token to token and reads it:

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        y_t = h_t C_t

Within a chunk this is attention with decaying scores, and only the states at the chunks' ends are passed on: matrix
products instead of a loop over tokens, and nothing that grows with the square of the sequence length.
"""

import torch
from torch import Tensor
from torch.nn import functional


def chunked_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    chunk: int,
    initial: Tensor | None = None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute y [batch, seq, heads, head_size] and the last state [batch, heads, head_size, state_size] in float32 at
    least.

    x [batch, seq, heads, head_size], dt [batch, seq, heads] (not negative; 0 leaves the state unchanged), A [heads]
    (negative), B and C [batch, seq, groups, state_size] (shared by heads / groups neighbouring heads), `initial` shaped
    as the last state (default: zero). `segments` [batch, seq] int64 counts up from 0 at each border that the state
    does not cross; `initial` belongs to segment 0.
    """
    batch, seq, heads, size = x.shape
    groups, state_size = B.shape[2:]
    wide = torch.promote_types(x.dtype, torch.float32)
    x, dt, A, B, C = (tensor.to(wide) for tensor in (x, dt, A, B, C))
    chunk = min(chunk, seq)
    chunks, share = -(-seq // chunk), heads // groups
    if segments is not None:
        segments = _cut(segments, chunk, last=True)
    within, since = _decays(_cut(dt * A, chunk).transpose(2, 3), segments)
    # [batch, chunks, chunk, groups, ..], then groups before tokens: rows of one product share B and C.
    inputs = _cut(x * dt[..., None], chunk).view(batch, chunks, chunk, groups, share, size)
    B, C = _cut(B, chunk).transpose(2, 3), _cut(C, chunk).transpose(2, 3)

    scores = (C @ B.mT)[:, :, :, None] * within.view(batch, chunks, groups, share, chunk, chunk)
    near = (scores @ inputs.permute(0, 1, 3, 4, 2, 5)).permute(0, 1, 4, 2, 3, 5)

    # Decay of each token at its chunk's end: the last row of the decays.
    left = within[..., -1, :].transpose(2, 3).reshape(batch, chunks, chunk, groups, share, 1)
    rows = (inputs * left).transpose(2, 3).reshape(batch, chunks, groups, chunk, share * size)
    added = (rows.mT @ B).view(batch, chunks, heads, size, state_size)
    # A chunk multiplies the state that enters it by its last token's decay and adds its own.
    state, states = torch.zeros_like(added[:, 0]) if initial is None else initial.to(added.dtype), []
    # unbind, not indexing: the gradient of each index would be as large as the whole tensor.
    for more, kept in zip(added.unbind(1), since[..., -1, None, None].unbind(1), strict=True):
        states.append(state)
        state = state * kept + more

    entering = torch.stack(states, dim=1).view(batch, chunks, groups, share * size, state_size)
    far = (C @ entering.mT).view(batch, chunks, groups, chunk, share, size).transpose(2, 3)
    reach = since.transpose(2, 3).reshape(batch, chunks, chunk, groups, share, 1)
    return (near + far * reach).reshape(batch, chunks * chunk, heads, size)[:, :seq], state


def recurrent_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, state: Tensor) -> tuple[Tensor, Tensor]:
    """Process one token: y [batch, heads, head_size] and the next state [batch, heads, head_size, state_size].

    x [batch, heads, head_size], dt [batch, heads], A [heads], B and C [batch, groups, state_size].
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x, dt, A, B, C, state = (tensor.to(wide) for tensor in (x, dt, A, B, C, state))
    share = x.shape[1] // B.shape[1]
    B, C = (tensor.repeat_interleave(share, dim=1) for tensor in (B, C))
    added = (x * dt[..., None])[..., None] * B[:, :, None]
    state = state * torch.exp(dt * A)[..., None, None] + added
    return (state @ C[..., None]).squeeze(-1), state


def _cut(tensor: Tensor, chunk: int, *, last: bool = False) -> Tensor:
    """[batch, seq, ..] -> [batch, chunks, chunk, ..], padded with zeros or, if `last`, with the last entry."""
    if missing := -tensor.shape[1] % chunk:
        fill = tensor[:, -1:].expand(-1, missing, *tensor.shape[2:])
        tensor = torch.cat([tensor, fill if last else torch.zeros_like(fill)], dim=1)
    return tensor.reshape(tensor.shape[0], -1, chunk, *tensor.shape[2:])


def _decays(rates: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
    """Decay at token t of token s, [batch, chunks, heads, t, s], and of the state before the chunk, [.., t].

    rates [batch, chunks, heads, chunk] are the logarithms of each token's decay; segments [batch, chunks, chunk].
    """
    chunk = rates.shape[-1]
    visible = torch.ones(chunk, chunk, dtype=torch.bool, device=rates.device).tril()
    # Differences of cumulative sums in float64: after strong decays, float32 would lose the weak ones.
    if segments is None:
        sums = rates.double().cumsum(-1)
        since = sums.to(rates.dtype).exp()
    else:
        visible = visible & (segments[..., :, None] == segments[..., None, :])[:, :, None]
        # Sums restart in each segment, so that not even a rounding error crosses a border.
        sums = (visible.double() @ rates.double()[..., None]).squeeze(-1)
        before = functional.pad(segments[:, :-1, -1], (1, 0))  # segment of the state that enters
        entered = (segments == before[..., None])[:, :, None]
        since = sums.to(rates.dtype).exp() * entered
    differences = (sums[..., :, None] - sums[..., None, :]).to(rates.dtype)
    return differences.masked_fill(~visible, -torch.inf).exp(), since
