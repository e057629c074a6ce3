"""Parts of a model's shape that have settings of their own: rotary scaling, mixtures of experts, state spaces."""

from typing import Literal, Self

from pydantic import Field, model_validator

from data.config import Block


class RopeScaling(Block):
    """How rotary angles are stretched, so that a model reads further than it was trained to."""

    kind: Literal["linear", "ntk", "yarn"]
    """linear: positions over `factor` (Chen et al., arXiv 2306.15595); ntk: a larger theta; yarn: each frequency by its
    wavelength (Peng et al., arXiv 2309.00071)."""
    factor: float = Field(ge=1)
    original_context: int | None = Field(None, ge=1)
    """The context trained at, which yarn's wavelengths are held against; unset: context / factor."""
    beta_fast: float = Field(32.0, gt=0)
    """yarn: rotations within the original context above which a frequency stays as it is."""
    beta_slow: float = Field(1.0, gt=0)
    """yarn: rotations below which a frequency is interpolated whole."""
    attention_factor: float | None = Field(None, gt=0)
    """yarn: what cosine and sine are multiplied by; unset: 0.1 ln(factor) + 1."""

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        of_yarn = ("original_context", "beta_fast", "beta_slow", "attention_factor")
        for name in of_yarn if self.kind != "yarn" else ():
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(f"rope_scaling.{name} {value:g} has no effect with kind {self.kind}")
        if self.beta_fast < self.beta_slow:
            raise ValueError(
                f"rope_scaling.beta_fast {self.beta_fast:g} must be at least beta_slow {self.beta_slow:g}: frequencies "
                "between the two are interpolated in part"
            )
        return self

    def trained_context(self, context: int) -> int:
        """yarn's original context in tokens, in a model of this `context`."""
        return self.original_context or max(1, round(context / self.factor))


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


class StateSpaceConfig(Block):
    """A Mamba-2 block (Dao and Gu, arXiv 2405.21060)."""

    state_size: int = Field(64, ge=1)
    head_size: int = Field(64, ge=1)
    expand: int = Field(2, ge=1)
    """Inner width over the model's."""
    groups: int = Field(1, ge=1)
    """Heads in a group share B and C, as query heads share keys and values."""
    conv_width: int = Field(4, ge=2)
    conv_bias: bool = True
    bias: bool = False
    """Of the projections in and out."""
    chunk: int = Field(64, ge=1)
    """Tokens a block of the scan; changes the speed, not the result."""
