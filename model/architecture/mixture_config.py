"""Settings of a mixture of experts. Imports no torch."""

from typing import Self

from pydantic import Field, model_validator

from sluice.core.settings.block import Block


class MixtureConfig(Block):
    """Mixture of feed-forward experts (Switch, arXiv 2101.03961; Mixtral, arXiv 2401.04088)."""

    experts: int = Field(ge=2)
    per_token: int = Field(2, ge=1)
    """Experts per token (top-k)."""
    shared: int = Field(0, ge=0)
    """Additional experts that process every token (DeepSeekMoE, arXiv 2401.06066)."""
    intermediate_size: int | None = Field(None, ge=1)
    """Inner width of one expert; unset: that of the dense network."""
    capacity_factor: float | None = Field(None, gt=0)
    """Most tokens per expert in training, relative to its even share; excess tokens are dropped and counted. Unset: no
    limit. (A second choice may lose its place to a later token's first choice, so such training is not strictly causal;
    GShard, arXiv 2006.16668.)"""
    normalize: bool = True
    """Normalize the weights of a token's experts to sum to one. With one expert per token all are
    one, and the router cannot learn."""
    balance_weight: float = Field(0.01, ge=0)
    """Weight of the load-balancing loss (Switch, equation 4)."""
    z_weight: float = Field(0.001, ge=0)
    """Weight of the router z-loss (ST-MoE, arXiv 2202.08906)."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.per_token > self.experts:
            raise ValueError(f"per_token {self.per_token} must be at most experts {self.experts}")
        return self
