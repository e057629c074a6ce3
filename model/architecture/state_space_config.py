"""Settings of a Mamba-2 layer. Imports no torch."""

from pydantic import Field

from sluice.core.settings.block import Block


class StateSpaceConfig(Block):
    """Mamba-2 layer (Dao and Gu, arXiv 2405.21060)."""

    state_size: int = Field(64, ge=1)
    head_size: int = Field(64, ge=1)
    expand: int = Field(2, ge=1)
    """Inner width divided by the model's width."""
    groups: int = Field(1, ge=1)
    """Heads in a group share B and C, as query heads share keys and values in GQA."""
    conv_width: int = Field(4, ge=2)
    conv_bias: bool = True
    bias: bool = False
    """Bias of the input and output projections."""
    chunk: int = Field(64, ge=1)
    """Tokens per chunk of the scan; affects speed, not results."""
