"""BERT's transformation between the last layer and the output head (arXiv 1810.04805)."""

from torch import Tensor, nn

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.pointwise import activate, make_norm


class MlmHead(nn.Module):
    """`norm(activation(dense(x)))`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.kind = config.feedforward
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = make_norm(config)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        return self.norm(activate(self.kind, self.dense(x)))
