"""The report of the pack step."""

from typing import Literal

from pydantic import BaseModel

from sluice.data.split import Split

Layout = Literal["concatenated", "best_fit"]


class SourceCounts(BaseModel):
    """Counts of one source in a held-out split."""

    documents: int = 0
    tokens: int = 0
    """End-of-text tokens included."""
    bytes: int = 0
    """UTF-8 bytes of the text."""


class SplitCounts(BaseModel):
    """Counts of one split. A document that the mix repeats counts each time."""

    documents: int = 0
    tokens: int = 0
    """End-of-text tokens and padding included."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    padding: int = 0
    """Tokens that fill rows; 0 where documents are concatenated."""
    shards: list[str] = []
    sources: dict[str, SourceCounts] = {}
    """Sources of a held-out split, where known; `{split}.sources.npy` has indices into the sorted names."""


class SourceTokens(BaseModel):
    """Training tokens of one source, end-of-text tokens included."""

    available: int
    """Tokens of its training documents, each once."""
    planned: int
    used: int
    """Differs from `planned` by less than one document, and is 0 only if `planned` is."""
    epochs: float
    """used / available."""
    documents: int
    """Documents used, counting repetitions."""


class LayoutCost(BaseModel):
    """Cost of laying the training documents into rows of `row_tokens`."""

    rows: int
    documents_cut: int
    """Documents that do not lie whole in one row."""
    padding: int
    """Tokens."""


class PackReport(BaseModel):
    """Counts of the packed splits; without `timings` it is index.json."""

    dtype: str
    vocab_size: int
    eos_id: int
    splits: dict[Split, SplitCounts]
    layout: Layout = "concatenated"
    """Layout of the training split. Held-out splits are always concatenated, so that losses compare across layouts."""
    row_tokens: int | None = None
    costs: dict[Layout, LayoutCost] = {}
    """Costs of best_fit and of rows cut from the concatenation; empty where no row length is set."""
    sources: dict[str, SourceTokens] = {}
    timings: dict[str, float] = {}
