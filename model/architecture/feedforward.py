"""Position-wise feed-forward networks (Shazeer, arXiv 2002.05202)."""

from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.config import GATED, FeedForwardKind, ModelConfig
from sluice.model.architecture.linear_backends import Project, apart


def activate(kind: FeedForwardKind, up: Tensor, gate: Tensor | None = None) -> Tensor:
    """What stands between the matrices: [..., width] -> [..., width]; `gate` for the gated kinds."""
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


class FeedForward(nn.Module):
    """`down(activate(up(x)))`, or with a gate `down(activation(gate(x)) * up(x))`."""

    def __init__(self, config: ModelConfig, width: int | None = None) -> None:
        """`width` replaces the configuration's own."""
        super().__init__()
        width, bias = width or config.feedforward_width, config.feedforward_bias
        self.kind = config.feedforward
        # Apart, not one fused matrix: its halves are strided, which costs a CPU more than the second product.
        self.gate = nn.Linear(config.hidden_size, width, bias=bias) if self.kind in GATED else None
        self.up = nn.Linear(config.hidden_size, width, bias=bias)
        self.down = nn.Linear(width, config.hidden_size, bias=bias)

    def forward(self, x: Tensor, project: Project = apart) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        maps = (self.up,) if self.gate is None else (self.gate, self.up)
        *gate, up = project(x, *maps)
        (y,) = project(activate(self.kind, up, *gate), self.down)
        return y
