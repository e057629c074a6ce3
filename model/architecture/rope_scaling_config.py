"""Settings of context extension by scaled rotary positions: linear, NTK-aware, YaRN, Llama 3, LongRoPE. Imports no
torch.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from sluice.core.settings.block import Block

_FIELDS_OF_KIND = {
    "original_context": ("dynamic", "yarn", "llama3", "longrope"),
    "beta_fast": ("yarn",),
    "beta_slow": ("yarn",),
    "attention_factor": ("yarn", "longrope"),
    "low_frequency_factor": ("llama3",),
    "high_frequency_factor": ("llama3",),
    "short_factors": ("longrope",),
    "long_factors": ("longrope",),
}
"""Field -> the kinds that read it."""


class RopeScaling(Block):
    """Scaling of rotary angles, so that a model handles longer contexts than it was trained on."""

    kind: Literal["linear", "ntk", "dynamic", "yarn", "llama3", "longrope"]
    """linear: positions divided by `factor` (Chen et al., arXiv 2306.15595); ntk: a larger theta; dynamic: a theta that
    grows with the sequence, beyond the original context only; yarn: each frequency by its wavelength (Peng et al.,
    arXiv 2309.00071); llama3: slow frequencies divided by `factor` (arXiv 2407.21783); longrope: a factor per
    frequency, from one list up to the original context and another beyond it (Ding et al., arXiv 2402.13753)."""
    factor: float = Field(ge=1)
    original_context: int | None = Field(None, ge=1)
    """dynamic, yarn, llama3, longrope: context length in training; unset: context / factor."""
    beta_fast: float = Field(32.0, gt=0)
    """yarn: rotations within the original context above which a frequency is unchanged."""
    beta_slow: float = Field(1.0, gt=0)
    """yarn: rotations below which a frequency is fully interpolated."""
    attention_factor: float | None = Field(None, gt=0)
    """yarn, longrope: factor of cosine and sine; unset: 0.1 ln(factor) + 1 for yarn, and for longrope the root of
    1 + ln(factor) / ln(original context)."""
    low_frequency_factor: float = Field(1.0, gt=0)
    """llama3: rotations within the original context below which a frequency is divided by `factor`."""
    high_frequency_factor: float = Field(4.0, gt=0)
    """llama3: rotations above which a frequency is unchanged."""
    short_factors: tuple[float, ...] | None = None
    """longrope: divisor of each frequency in sequences of up to the original context."""
    long_factors: tuple[float, ...] | None = None
    """longrope: divisor of each frequency in longer sequences."""

    @property
    def follows_length(self) -> bool:
        """Return whether the frequencies depend on the length of the sequence."""
        return self.kind in ("dynamic", "longrope")

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        for name, kinds in _FIELDS_OF_KIND.items():
            value = getattr(self, name)
            if self.kind not in kinds and value != type(self).model_fields[name].default:
                shown = f"{value:g}" if isinstance(value, int | float) else repr(value)
                raise ValueError(f"rope_scaling.{name} {shown} has no effect with kind {self.kind}")
        if self.beta_fast < self.beta_slow:
            raise ValueError(
                f"rope_scaling.beta_fast {self.beta_fast:g} must be at least beta_slow {self.beta_slow:g}: frequencies "
                "between the two are interpolated in part"
            )
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"rope_scaling.high_frequency_factor {self.high_frequency_factor:g} must be above low_frequency_factor "
                f"{self.low_frequency_factor:g}: frequencies between the two are divided in part"
            )
        for name in ("short_factors", "long_factors") if self.kind == "longrope" else ():
            if (factors := getattr(self, name)) is None:
                raise ValueError(f"rope_scaling.{name} is missing: longrope needs a number for each pair that rotates")
            if not all(0 < factor < math.inf for factor in factors):
                raise ValueError(f"rope_scaling.{name} {list(factors)} must be positive numbers")
        return self

    def trained_context(self, context: int) -> int:
        """Original context in tokens, for a model with this `context`."""
        return self.original_context or max(1, round(context / self.factor))

    def changes(self, held: int, length: int, context: int) -> bool:
        """Return whether a sequence that grows from `held` to `length` tokens passes the original context of longrope.

        Beyond it, all of its tokens rotate anew.
        """
        return self.kind == "longrope" and 0 < held <= self.trained_context(context) < length

    def attention_scale(self, context: int) -> float:
        """Factor of cosine and sine, which compensates for flatter scores: that of YaRN and LongRoPE; otherwise 1."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.kind == "longrope" and self.factor > 1:
            return math.sqrt(1 + math.log(self.factor) / math.log(self.trained_context(context)))
        return 0.1 * math.log(self.factor) + 1.0 if self.kind == "yarn" else 1.0
