"""Settings of the `train` command beside those of the run itself. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from sluice.core.settings.block import Block


class TextConfig(Block):
    """A plain text from which `sluice train` makes its tokens."""

    block_name: ClassVar[str] = "text"

    path: str | None = None
    """A UTF-8 text file, or a packed folder; unset: what the pack step made."""
    tokenizer: Literal["character", "byte", "bpe"] = "bpe"
    """character: one token a character; byte: one a byte; bpe: by the `tokenizer` block."""
    valid_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of the characters, at the end, that is held out."""
