"""Mixture of experts: each token goes through a few of many feed-forward networks.

Switch Transformer (arXiv 2101.03961), GShard (arXiv 2006.16668), Mixtral (arXiv 2401.04088); shared experts as in
DeepSeekMoE (arXiv 2401.06066).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.config import GATED, ModelConfig
from sluice.model.architecture.pointwise import FeedForward, activate


@dataclass(frozen=True)
class Routing:
    """Routing statistics of one layer in one forward pass. A choice is one token sent to one of its experts; padding is
    not counted.
    """

    balance: Tensor
    """Scalar: `experts * sum(f * P)`, with f an expert's share of all choices (before any is dropped) and P its mean
    probability. 1 for an even load, up to `experts` / `per_token` for a collapsed one. With one expert per token
    this is Switch's equation 4; with more, Mixtral's loss divided by `per_token`.
    """
    z: Tensor
    """Scalar: mean of logsumexp(logits)^2 (ST-MoE, arXiv 2202.08906), which keeps the router's logits small."""
    load: Tensor
    """[experts] float32: share of all choices that each expert took; sums to 1 minus the dropped share."""
    dropped: Tensor
    """Scalar int64: choices dropped because their expert was full."""


class MoE(nn.Module):
    """Replaces a `FeedForward`; the experts are of the configured kind."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        mixture = config.mixture
        assert mixture is not None, "a mixture needs config.mixture"
        self.settings, self.kind = mixture, config.feedforward
        experts, hidden = mixture.experts, config.hidden_size
        width = mixture.intermediate_size or config.feedforward_width
        self.router = nn.Linear(hidden, experts, bias=False)
        # One stacked matrix per product, [experts, out, in], instead of one module per expert.
        self.gate = _stacked(experts, width, hidden) if self.kind in GATED else None
        self.up = _stacked(experts, width, hidden)
        self.down = _stacked(experts, hidden, width)
        bias = config.feedforward_bias
        self.gate_bias = nn.Parameter(torch.zeros(experts, width)) if bias and self.kind in GATED else None
        self.up_bias = nn.Parameter(torch.zeros(experts, width)) if bias else None
        self.down_bias = nn.Parameter(torch.zeros(experts, hidden)) if bias else None
        self.shared = FeedForward(config, mixture.shared * width) if mixture.shared else None

    def forward(self, x: Tensor, real: Tensor | None = None) -> tuple[Tensor, Routing]:
        """[batch, seq, hidden] -> [batch, seq, hidden] and the routing of the tokens for which `real` [batch, seq] bool
        is True (None: all).

        Capacity is limited in training only: otherwise a token's output must not depend on others in its batch. The
        capacity follows from the number of real tokens, and they take precedence over padding.
        """
        tokens, settings = x.flatten(0, -2), self.settings
        # At least float32, also under autocast: a rounding error here would change the routing.
        wide = torch.promote_types(tokens.dtype, torch.float32)
        with torch.autocast(tokens.device.type, enabled=False):
            logits = functional.linear(tokens.to(wide), self.router.weight.to(wide))
        probabilities = logits.softmax(dim=-1)
        weights, chosen = probabilities.topk(settings.per_token, dim=-1)
        if settings.normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        real = None if real is None else real.flatten()
        every, wanted = by_expert(chosen, settings.experts, real)
        order, taken = every, wanted
        if settings.capacity_factor is not None and self.training:
            choices = settings.per_token * (len(tokens) if real is None else int(real.sum()))
            most = capacity(settings.capacity_factor, choices, settings.experts)
            order, taken = within_capacity(every, wanted, most)
        rows = tokens.index_select(0, order % len(tokens))
        results = (self._grouped if groups_well(rows, self.up) else self._in_turn)(rows, taken)
        # Back in the order of the choices; dropped ones stay zero.
        outputs = results.new_zeros(weights.numel(), tokens.shape[1]).index_copy(0, order, results)
        weights = weights.T[..., None].to(results.dtype)
        mixed = (outputs.view(-1, *tokens.shape) * weights).sum(dim=0).to(tokens.dtype)
        if self.shared is not None:
            mixed = mixed + self.shared(tokens)
        if real is None:
            return mixed.view_as(x), _routing(logits, probabilities, wanted, taken)
        # Choices of real tokens per expert, before and after the limit.
        none = torch.zeros(settings.experts, dtype=torch.int64, device=x.device)
        wanted, taken = (
            none.index_add(0, chosen.T.flatten()[each], real[each % len(real)].long()) for each in (every, order)
        )
        return mixed.view_as(x), _routing(logits, probabilities, wanted, taken, real)

    def _in_turn(self, rows: Tensor, counts: Tensor) -> Tensor:
        """One expert after another; rows [choices, hidden] are sorted by expert, `counts` [experts] per expert."""
        # unbind, not indexing: the gradient of each index would be as large as the whole stack.
        stacks = (self.gate, self.up, self.down, self.gate_bias, self.up_bias, self.down_bias)
        per_expert = ([None] * len(counts) if stack is None else stack.unbind(0) for stack in stacks)
        parts = []
        for part, gate, up, down, gate_bias, up_bias, down_bias in zip(
            rows.split(counts.tolist()), *per_expert, strict=True
        ):
            if len(part):
                gated = None if gate is None else functional.linear(part, gate, gate_bias)
                hidden = activate(self.kind, functional.linear(part, up, up_bias), gated)
                parts.append(functional.linear(hidden, down, down_bias))
        return torch.cat(parts)

    def _grouped(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Equals `_in_turn`, with one grouped product per matrix and without reading `counts` from the device."""
        ends = counts.cumsum(0).int()

        def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            y = functional.grouped_mm(x, weight.to(x.dtype).mT, offs=ends)
            if bias is None:
                return y
            places = torch.arange(len(x), device=x.device)
            return y + bias.to(x.dtype)[torch.searchsorted(ends, places, right=True)]

        gated = None if self.gate is None else product(rows, self.gate, self.gate_bias)
        hidden = activate(self.kind, product(rows, self.up, self.up_bias), gated)
        return product(hidden, self.down, self.down_bias)


def groups_well(rows: Tensor, weight: Tensor) -> bool:
    """Return whether a grouped product of rows [choices, in] with [experts, out, in] is possible and faster.

    A CPU runs one product per expert; elsewhere that would wait for their sizes. torch groups only matrices whose rows
    are a multiple of 16 bytes.
    """
    aligned = all(size * rows.element_size() % 16 == 0 for size in weight.shape[1:])
    return rows.device.type != "cpu" and aligned


def by_expert(chosen: Tensor, experts: int, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choices sorted by expert, [tokens x per_token] int64, and the number per expert, [experts] int64.

    `chosen` [tokens, per_token] lists each token's experts, best first. A choice's number is rank x tokens + token, so
    that within an expert all first choices precede all second ones, and earlier tokens precede later ones; padding
    (`real` [tokens] bool is False) comes last.
    """
    flat = chosen.T.flatten()
    counts = torch.zeros(experts, dtype=torch.int64, device=chosen.device)
    places = flat if real is None else 2 * flat + (~real).repeat(chosen.shape[1])
    return places.argsort(stable=True), counts.index_add(0, flat, torch.ones_like(flat))


def capacity(factor: float, choices: int, experts: int) -> int:
    """Most choices that one expert takes: `factor` times its even share, rounded up, at least one."""
    return max(1, math.ceil(factor * choices / experts))


def within_capacity(order: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The first `most` choices of each expert and their number per expert, in the format of `by_expert`."""
    starts = counts.cumsum(0) - counts
    places = torch.arange(len(order), device=order.device) - starts.repeat_interleave(counts, output_size=len(order))
    return order[places < most], counts.clamp(max=most)


def auxiliary_loss(routings: Sequence[Routing], config: ModelConfig) -> Tensor:
    """Scalar to add to the loss per token: weighted balancing and z-loss, summed over layers as in Switch."""
    mixture = config.mixture
    assert mixture is not None and routings, "an auxiliary loss needs a mixture and its forward pass"
    return torch.stack([mixture.balance_weight * r.balance + mixture.z_weight * r.z for r in routings]).sum()


def expert_load(routings: Sequence[Routing]) -> Tensor:
    """[layers, experts] float32: share of each layer's choices that each expert took."""
    return torch.stack([routing.load for routing in routings])


def _routing(
    logits: Tensor, probabilities: Tensor, wanted: Tensor, taken: Tensor, real: Tensor | None = None
) -> Routing:
    choices = wanted.sum().clamp(min=1)
    shares = wanted / choices
    balance = len(wanted) * (shares * _mean(probabilities, real)).sum()
    z = _mean(logits.logsumexp(dim=-1).square(), real)
    return Routing(balance, z, (taken / choices).float(), wanted.sum() - taken.sum())


def _mean(x: Tensor, real: Tensor | None) -> Tensor:
    """Mean over real tokens: [tokens, ..] -> [..]; 0 if there are none."""
    if real is None:
        return x.mean(dim=0)
    weights = real.to(x.dtype) / real.sum().clamp(min=1)
    # Not a product: values at padding may be NaN.
    return torch.where(real.view(-1, *[1] * (x.ndim - 1)), x, 0).transpose(0, -1) @ weights


def _stacked(experts: int, outputs: int, inputs: int) -> nn.Parameter:
    """[experts, outputs, inputs], each matrix initialized like an nn.Linear's."""
    return nn.Parameter(torch.empty(experts, outputs, inputs).uniform_(-(inputs**-0.5), inputs**-0.5))
