"""SwiGLU feed-forward network (Shazeer, arXiv 2002.05202)."""

from torch import Tensor, nn
from torch.nn import functional

from model.architecture.config import TransformerConfig


class FeedForward(nn.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        # Apart, not one fused matrix: its halves are strided, which costs a CPU more than the second product.
        self.gate = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))
