"""Settings of context extension by scaled rotary positions: linear, NTK-aware, YaRN. Imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sluice.core.settings.block import Block


class RopeScaling(Block):
    """Scaling of rotary angles, so that a model handles longer contexts than it was trained on."""

    kind: Literal["linear", "ntk", "yarn"]
    """linear: positions divided by `factor` (Chen et al., arXiv 2306.15595); ntk: a larger theta; yarn: each frequency
    by its wavelength (Peng et al., arXiv 2309.00071)."""
    factor: float = Field(ge=1)
    original_context: int | None = Field(None, ge=1)
    """yarn: context length in training, which wavelengths are compared with; unset: context / factor."""
    beta_fast: float = Field(32.0, gt=0)
    """yarn: rotations within the original context above which a frequency is unchanged."""
    beta_slow: float = Field(1.0, gt=0)
    """yarn: rotations below which a frequency is fully interpolated."""
    attention_factor: float | None = Field(None, gt=0)
    """yarn: factor of cosine and sine; unset: 0.1 ln(factor) + 1."""

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
        """Original context of yarn in tokens, for a model with this `context`."""
        return self.original_context or max(1, round(context / self.factor))
