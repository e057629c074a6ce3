"""What the layers of one forward pass share."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from sluice.model.architecture.attention_mask import Visibility
from sluice.model.architecture.config import LayerKind
from sluice.model.architecture.linear_backends import Project, apart

if TYPE_CHECKING:
    from sluice.model.architecture.cache import CacheStep
    from sluice.model.architecture.kernels import KernelName
    from sluice.model.architecture.moe import Routing


@dataclass
class Pass:
    """One forward pass through one stack of layers."""

    visibility: dict[LayerKind | Literal["source"], Visibility]
    """By the kind of layer; `source` is cross-attention's."""
    rotary: tuple[Tensor, Tensor] | None = None
    """Of RotaryEmbedding, for the rows' positions."""
    documents: Tensor | None = None
    """[batch, seq] int64: state space layers forget at their borders."""
    real: Tensor | None = None
    """[batch, seq] bool, False for padding, which a mixture's losses leave out; None: all are real."""
    step: "CacheStep | None" = None
    source: Tensor | None = None
    """[batch, source, hidden]: states of the encoder; None where the cache holds their keys and values."""
    kernel: "KernelName | None" = None
    """Attention kernel that was asked for; None: the best one that can do it."""
    project: Project = apart
    """How the linear maps of one input are computed."""
    routing: "list[Routing]" = field(default_factory=list)
    """What the mixtures say of this pass, in the order of the layers."""
