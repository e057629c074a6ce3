"""The settings of a mixture of experts. Light: no torch."""

from typing import Self

from pydantic import Field, model_validator

from sluice.core.settings.block import Block


class MixtureConfig(Block):
    """Feed-forward networks of which each token takes a few (Switch, arXiv 2101.03961; Mixtral, arXiv 2401.04088)."""

    experts: int = Field(ge=2)
    per_token: int = Field(2, ge=1)
    """Experts a token goes to (top-k)."""
    shared: int = Field(0, ge=0)
    """Experts that every token goes to besides (DeepSeekMoE, arXiv 2401.06066)."""
    intermediate_size: int | None = Field(None, ge=1)
    """Of one expert; unset: that of the dense network."""
    capacity_factor: float | None = Field(None, gt=0)
    """Tokens an expert takes at most in training, over its even share; what comes beyond is dropped and counted. Unset:
    all. (A second choice may lose its place to a later token's first: such training is not strictly causal, GShard,
    arXiv 2006.16668.)"""
    normalize: bool = True
    """The weights of a token's experts sum to one. With one expert a token they would all be one."""
    balance_weight: float = Field(0.01, ge=0)
    """Of the load-balancing loss (Switch, equation 4)."""
    z_weight: float = Field(0.001, ge=0)
    """Of the router z-loss (ST-MoE, arXiv 2202.08906)."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.per_token > self.experts:
            raise ValueError(f"per_token {self.per_token} must be at most experts {self.experts}")
        if self.per_token == 1 and self.normalize:
            raise ValueError("normalize with per_token 1 makes every weight 1 and leaves the router without gradient")
        return self
