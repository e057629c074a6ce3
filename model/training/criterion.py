"""What a worker minimizes on one micro-batch."""

from torch import Tensor, nn

from model.architecture.loss import cross_entropy_sum
from model.architecture.mixture import auxiliary_loss
from model.architecture.transformer import Transformer
from model.training.batch import Batch


class Criterion(nn.Module):
    """The model with its loss. A module, because ZeRO 3 gathers weights around the forward pass of the module that
    reads them, and the head's are read by the loss.
    """

    def __init__(self, model: Transformer, z_loss: float = 0.0) -> None:
        super().__init__()
        self.model, self.z_loss = model, z_loss

    def forward(self, batch: Batch, tokens: int) -> tuple[Tensor, Tensor]:
        """This micro-batch's share of a loss a token over `tokens`, and its summed cross-entropy in nats; scalars.

        Shares of all micro-batches and workers sum to the mean cross-entropy of the step, with the weighted z-loss and
        the routers' losses (weighted by the tokens of each micro-batch).
        """
        nats, count = cross_entropy_sum(
            self.model, batch.ids, batch.targets, batch.mask, z_loss=self.z_loss, **batch.inputs
        )
        objective = nats / tokens
        if routing := self.model.routing:
            objective = objective + auxiliary_loss(routing, self.model.config) * (count / tokens)
        return objective, nats.detach()
