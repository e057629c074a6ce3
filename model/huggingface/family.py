"""A family of models of transformers: how its config.json reads, and what its weights are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice.model.architecture.config import FeedForwardKind, TransformerConfig
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.weights import Weight

GATED_ACTIVATIONS: dict[str, FeedForwardKind] = {
    "silu": "swiglu",
    "gelu": "geglu",
    "gelu_pytorch_tanh": "geglu_tanh",
}
PLAIN_ACTIVATIONS: dict[str, FeedForwardKind] = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}


@dataclass(frozen=True)
class Family:
    """One architecture of transformers."""

    name: str
    """`model_type` in config.json."""
    architecture: str
    """The class that computes the logits."""
    read: Callable[[Fields], dict[str, Any]]
    """Takes the fields with an effect and returns ours. Raises ValueError for what is not computed here."""
    write: Callable[[TransformerConfig], dict[str, Any]]
    """The fields with an effect, as near as the family comes: what it cannot express shows when it is read back."""
    weights: Callable[[TransformerConfig], list[Weight]]
    """The table of names; rows that a configuration has no weights for are passed over."""
    fields: Mapping[str, str]
    """Our fields -> those of config.json that they are read from, where the names differ; for messages."""
    without_effect: frozenset[str] = frozenset()
    """Fields of this family that change nothing about the logits."""
    unused: tuple[str, ...] = ()
    """Patterns (regular expressions of whole names) of weights that change nothing about the logits."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Patterns in weight names of older checkpoints -> what stands there now."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Names under which a checkpoint may hold another weight a second time."""
