"""A model family of transformers: how to read and write its config.json, and the names of its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice.model.architecture.config import FeedForwardKind, TransformerConfig
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.weights import WeightRow

GATED_ACTIVATIONS: dict[str, FeedForwardKind] = {
    "silu": "swiglu",
    "gelu": "geglu",
    "gelu_pytorch_tanh": "geglu_tanh",
}
PLAIN_ACTIVATIONS: dict[str, FeedForwardKind] = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}


@dataclass(frozen=True)
class Family:
    """One model family of transformers."""

    name: str
    """`model_type` in config.json."""
    architecture: str
    """Name of the transformers class that computes the logits."""
    read: Callable[[Fields], dict[str, Any]]
    """Reads the fields that have an effect and returns ours. Raises ValueError for unsupported values."""
    write: Callable[[TransformerConfig], dict[str, Any]]
    """Returns the fields that have an effect, as close as possible: reading them back shows what is lost."""
    weights: Callable[[TransformerConfig], list[WeightRow]]
    """Returns the table of weight names; rows without a weight in this configuration are skipped."""
    fields: Mapping[str, str]
    """Our field -> field of config.json that it is read from, where the names differ; for messages."""
    head: str = "lm_head.weight"
    """Name of the weight of an output head that is not the embedding."""
    without_effect: frozenset[str] = frozenset()
    """Fields of this family that do not affect the logits."""
    unused: tuple[str, ...] = ()
    """Regular expressions for the full names of weights that do not affect the logits."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Regular expression in weight names of older checkpoints -> its current replacement."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Name under which a checkpoint may store a second copy -> the weight that it copies."""
