"""Token shards as memory maps with document boundaries, on three sides that share no document."""

from sluice.data.packing.loader import Loader, LoaderState, PackedRows
from sluice.data.packing.pack import pack
from sluice.data.packing.report import LayoutCost, PackReport, SourceCounts, SourceTokens, SplitCounts
from sluice.data.packing.shards import PackedTokens, TokenSequence
from sluice.data.split import split_of

__all__ = [
    "LayoutCost",
    "Loader",
    "LoaderState",
    "PackReport",
    "PackedRows",
    "PackedTokens",
    "SourceCounts",
    "SourceTokens",
    "SplitCounts",
    "TokenSequence",
    "pack",
    "split_of",
]
