"""What the pack step says it made."""

from typing import Literal

from pydantic import BaseModel

from sluice.data.split import Split

Layout = Literal["concatenated", "best_fit"]


class SourceCounts(BaseModel):
    """What a held-out side holds of one source."""

    documents: int = 0
    tokens: int = 0
    """The end-of-text token of each document included."""
    bytes: int = 0
    """UTF-8 bytes of the text."""


class SplitCounts(BaseModel):
    """What one side holds. A document that the mix repeats counts each time."""

    documents: int = 0
    tokens: int = 0
    """The end-of-text token of each document and the padding included."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    padding: int = 0
    """Tokens that fill rows up; none where documents are concatenated."""
    shards: list[str] = []
    sources: dict[str, SourceCounts] = {}
    """Of a held-out side, where they are known: `{split}.sources.npy` numbers its documents by the sorted names."""


class SourceTokens(BaseModel):
    """Training tokens of one source, end-of-text tokens included."""

    available: int
    """Of its training documents, each once."""
    planned: int
    used: int
    """Differs from `planned` by less than one document, and is 0 only where that is."""
    epochs: float
    """used / available."""
    documents: int
    """Used, each time it is."""


class LayoutCost(BaseModel):
    """What it costs to lay the training documents into rows of `row_tokens`."""

    rows: int
    documents_cut: int
    """Documents that do not lie whole in one row."""
    padding: int
    """Tokens."""


class PackReport(BaseModel):
    """What was packed; without `timings` it is index.json."""

    dtype: str
    vocab_size: int
    eos_id: int
    splits: dict[Split, SplitCounts]
    layout: Layout = "concatenated"
    """Of the training side. The held-out sides are always concatenated, so that their loss compares across layouts."""
    row_tokens: int | None = None
    costs: dict[Layout, LayoutCost] = {}
    """Of best_fit beside rows cut from the plain concatenation; empty where no row length is given."""
    sources: dict[str, SourceTokens] = {}
    timings: dict[str, float] = {}
