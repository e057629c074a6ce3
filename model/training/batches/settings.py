"""Settings of the `train` command beside those of the run itself. Imports no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sluice.core.settings.block import Block
from sluice.core.settings.files import NamesFile


class BaseConfig(Block):
    """A model directory that `sluice train` begins at, with its shape and tokenizer, instead of random weights."""

    block_name: ClassVar[str] = "base"

    path: Annotated[str | None, NamesFile()] = None
    """A decoder, as `sluice model import` or an earlier run wrote it; unset: random weights."""
    context: int | None = Field(None, ge=8)
    """Tokens of a training sequence; unset: the model's own context, but at most 1,024."""
    sha256: str | None = None
    """Hash of its configuration, weights and tokenizer; filled in when the run is composed."""


class TextConfig(Block):
    """A plain text from which `sluice train` makes its tokens."""

    block_name: ClassVar[str] = "text"

    path: str | None = None
    """A UTF-8 text file, or a packed folder; unset: what the pack step made."""
    tokenizer: Literal["character", "byte", "bpe"] = "bpe"
    """character: one token a character; byte: one a byte; bpe: by the `tokenizer` block."""
    valid_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of the characters, at the end, that is held out."""
