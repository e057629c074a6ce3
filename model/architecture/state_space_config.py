"""The settings of a Mamba-2 block. Light: no torch."""

from pydantic import Field

from sluice.core.settings.block import Block


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
