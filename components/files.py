"""Files that the settings name count by content: params.yaml holds their sha256, so a changed file is a changed setting
and its step runs again.
"""

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple, TypeVar

from data.config import Block, EvaluationSet, IngestConfig, RefineConfig, TokenizerConfig
from data.manifest import file_hash

AnyBlock = TypeVar("AnyBlock", bound=Block)


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


def with_hashes(block: AnyBlock, root: Path) -> AnyBlock:
    """The block with the sha256 of every file it names, as it lies below `root` now; local sources have one for all.

    ValueError for a file that does not exist, or whose sha256 somebody has set: it is never anybody's to say.
    """
    if isinstance(block, IngestConfig):
        return block.model_copy(update={"sources_sha256": _contents(block, root)})
    for each in named(block):
        if each.sha256 is not None:
            raise ValueError(f"{each.setting}: sha256 {each.sha256} is filled in from the file itself: leave it out")
    if isinstance(block, RefineConfig):
        sets = [_with_hash(each, root) for each in block.sets]
        model = _hash("refine.quality_model", block.quality_model, root)
        return block.model_copy(update={"evaluation_sets": sets, "quality_model_sha256": model})
    if isinstance(block, TokenizerConfig):
        return block.model_copy(update={"path_sha256": _hash("tokenizer.path", block.path, root)})
    return block


def check_hashes(block: Block, root: Path) -> None:
    """ValueError for a file that is not, or no longer, the one that params.yaml was composed with."""
    for each in named(block):
        if _hash(each.setting, each.path, root) != each.sha256:
            raise ValueError(
                f"{each.setting}: {each.path} is not the file that params.yaml was composed with: `sluice run` takes "
                "it as it is now"
            )


def _contents(block: IngestConfig, root: Path) -> str | None:
    if block.sources_sha256 is not None:
        raise ValueError(f"data.sources_sha256 {block.sources_sha256} is filled in from the files: leave it out")
    if not block.given:
        return None
    from data.sources.contents import contents_sha256

    # Relative paths are from the workspace, as the step reads them.
    with chdir(root):
        return contents_sha256(block)


def _with_hash(each: EvaluationSet, root: Path) -> EvaluationSet:
    return each.model_copy(update={"sha256": _hash("refine.evaluation_sets", each.path, root)})


def _hash(setting: str, path: str | None, root: Path) -> str | None:
    if path is None:
        return None
    if not (root / path).is_file():
        raise ValueError(
            f"{setting}: {path} is no file (looked for at {root / path}): correct the path, or leave it out"
        )
    return file_hash(root / path)
