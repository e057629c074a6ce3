"""Settings of the quality signals of a rollout."""

from typing import Literal

from pydantic import Field, model_validator

from sluice.core.settings.block import Block


class QualityConfig(Block):
    """What a rollout measures of the answers, besides errors and times."""

    max_parity_difference: float = Field(0.01, gt=0, lt=1)
    """The challenger is dropped once more of its greedy answers than this are shown to differ from the gate's."""
    unacceptable_parity_difference: float = Field(0.05, gt=0, lt=1)
    """The challenger advances only once fewer are shown to differ, or all of the gate's prompts were compared."""
    known_items: int = Field(64, ge=0)
    """Most golden prompts and suite items that both versions are asked; 0: none."""
    text: Literal["hold", "drop", "off"] = "hold"
    """If a text difference is shown: `hold` pauses the rollout for a person, `drop` drops the challenger."""
    least_votes: int = Field(30, ge=1)
    """Votes that each version needs before votes are compared."""
    judge: bool = False
    """Have the judge at SLUICE_JUDGE_URL compare answers. It counts only if it agrees with people (kappa 0.6)."""
    probes_at_once: int = Field(2, ge=1)
    """Probes in flight, each a request to both versions, beside the replayed prompts."""

    @model_validator(mode="after")
    def _limit_below_unacceptable(self) -> "QualityConfig":
        limit, unacceptable = self.max_parity_difference, self.unacceptable_parity_difference
        if limit >= unacceptable:
            raise ValueError(
                f"max_parity_difference {limit:g} must be less than unacceptable_parity_difference {unacceptable:g}: "
                "between them the rollout holds"
            )
        return self
