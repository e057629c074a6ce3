"""The loss of one micro-batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.moe import auxiliary_loss, expert_load
from sluice.model.architecture.transformer import Transformer
from sluice.model.training.batches.batch import Batch


class Load(NamedTuple):
    """Load of the experts in a step."""

    shares: Tensor
    """[layers, experts]: share of a layer's choices that each expert took."""
    dropped: int
    """Choices that found their expert full."""


class Criterion(nn.Module):
    """The model with its loss. A module, because ZeRO 3 gathers weights around the forward pass of the module that
    reads them, and the head's are read by the loss.
    """

    def __init__(self, model: Transformer, z_loss: float = 0.0) -> None:
        super().__init__()
        self.model, self.z_loss = model, z_loss
        self._routed: Tensor | None = None
        """[1 + 1 + layers x experts] float64: rows, choices dropped, and rows times an expert's share."""

    def forward(self, batch: Batch, tokens: int, each: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """This micro-batch's share of a loss a token over `tokens`, and its summed cross-entropy in nats; scalars.

        Shares of all micro-batches and workers sum to the mean cross-entropy of the step, with the weighted z-loss and
        the routers' losses (weighted by the tokens of each micro-batch). `each` is filled as `cross_entropy_sum` does.
        """
        nll_sum, count = cross_entropy_sum(
            self.model, batch.ids, batch.targets, batch.mask, z_loss=self.z_loss, each=each, **batch.inputs
        )
        objective = nll_sum / tokens
        if routing := self.model.routing:
            objective = objective + auxiliary_loss(routing, self.model.config) * (count / tokens)
            if torch.is_grad_enabled():
                # Micro-batches of a step differ only in their rows.
                rows = len(batch.ids)
                shares = rows * expert_load(routing).detach().double().flatten()
                dropped = torch.stack([each.dropped for each in routing]).sum()
                noted = torch.cat([torch.stack([dropped.new_tensor(rows), dropped]).double(), shares])
                self._routed = noted if self._routed is None else self._routed + noted
        return objective, nll_sum.detach()

    def take_load(self, join: Callable[[Tensor], Tensor] = lambda sums: sums) -> Load | None:
        """Load of the experts in the passes with a gradient since the last call; `join` sums over the workers. None: no
        mixture.
        """
        if self._routed is None:
            return None
        summed, mixture = join(self._routed), self.model.config.mixture
        assert mixture is not None
        self._routed = None
        return Load((summed[2:] / summed[0]).view(-1, mixture.experts), int(summed[1]))
