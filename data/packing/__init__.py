"""Token shards as memory maps with document boundaries, on three sides that share no document."""

from data.packing.loader import Batch, Loader, LoaderState
from data.packing.pack import pack
from data.packing.report import LayoutCost, PackReport, SourceCounts, SourceTokens, SplitCounts
from data.packing.shards import PackedTokens, TokenSequence
from data.split import split_of

__all__ = [
    "Batch",
    "LayoutCost",
    "Loader",
    "LoaderState",
    "PackReport",
    "PackedTokens",
    "SourceCounts",
    "SourceTokens",
    "SplitCounts",
    "TokenSequence",
    "pack",
    "split_of",
]
