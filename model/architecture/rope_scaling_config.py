"""The settings of longer rotary positions: linear, NTK-aware, YaRN. Light: no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sluice.core.settings.block import Block


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
