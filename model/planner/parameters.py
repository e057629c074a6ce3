"""Number of weights by component; exact, because it is the sum of the weights that the model has."""

from sluice.model.architecture.config import TransformerConfig
from sluice.model.planner.base import Record
from sluice.model.planner.weights import COMPONENTS, WeightSpec, list_weights


class Parameters(Record):
    """Number of weights by component."""

    embedding: int
    """Embeddings of tokens and of token types."""
    positions: int
    """Learned positions, or the tables of relative ones."""
    attention: int
    cross_attention: int
    feedforward: int
    router: int
    experts: int
    """Routed and shared."""
    state_space: int
    norms: int
    """Norms of the layers, between and after them, and of queries and keys."""
    head: int
    """0 where the head is the embedding."""
    total: int
    active: int
    """Weights that a token uses: of the routed experts, the `per_token` that it is routed to."""
    non_embedding: int
    """Without embedding, positions and head: the N of the scaling laws (Kaplan et al., arXiv 2001.08361)."""
    matrices: int
    """The matrices before the head, which Muon trains."""


def count_parameters(config: TransformerConfig) -> Parameters:
    """Exact: the numbers of the model that `Transformer(config)` builds."""
    weights = list(list_weights(config))
    counts = dict.fromkeys(COMPONENTS, 0)
    for weight in weights:
        counts[weight.component] += weight.size
    total = sum(counts.values())
    return Parameters(
        **counts,
        total=total,
        active=sum(active_size(config, weight) for weight in weights),
        non_embedding=total - counts["embedding"] - counts["positions"] - counts["head"],
        matrices=sum(weight.size for weight in weights if weight.is_product),
    )


def active_size(config: TransformerConfig, weight: WeightSpec) -> int:
    """Entries of `weight` that one token uses."""
    if config.mixture is None or weight.component != "experts" or ".shared." in weight.name:
        return weight.size
    return weight.size // config.mixture.experts * config.mixture.per_token
