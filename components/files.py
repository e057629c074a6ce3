"""Files that the settings name count by content: params.yaml holds their sha256, so a changed file is a changed setting
and its step runs again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sluice.core.manifest import file_hash
from sluice.core.settings.block import Block
from sluice.data.config import RefineConfig, TokenizerConfig


class Named(NamedTuple):
    """A file that a setting names."""

    setting: str
    path: str
    sha256: str | None


def named(block: Block) -> Iterator[Named]:
    """The files of a block."""
    if isinstance(block, RefineConfig):
        for each in block.sets:
            yield Named("refine.evaluation_sets", each.path, each.sha256)
        if block.quality_model is not None or block.quality_model_sha256 is not None:
            yield Named("refine.quality_model", block.quality_model or "", block.quality_model_sha256)
    if isinstance(block, TokenizerConfig) and (block.path is not None or block.path_sha256 is not None):
        yield Named("tokenizer.path", block.path or "", block.path_sha256)


def check_hashes(block: Block, root: Path) -> None:
    """ValueError for a file that is not, or no longer, the one that params.yaml was composed with."""
    for each in named(block):
        if hash_of(each.setting, each.path, root) != each.sha256:
            raise ValueError(
                f"{each.setting}: {each.path} is not the file that params.yaml was composed with: `sluice run` takes "
                "it as it is now"
            )


def hash_of(setting: str, path: str | None, root: Path) -> str | None:
    """ValueError where there is no such file below `root`; None where none is named."""
    if path is None:
        return None
    if not (root / path).is_file():
        raise ValueError(
            f"{setting}: {path} is no file (looked for at {root / path}): correct the path, or leave it out"
        )
    return file_hash(root / path)
