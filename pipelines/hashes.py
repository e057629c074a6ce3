"""The hashes of the files that settings name, filled in when the settings are composed."""

from contextlib import chdir
from pathlib import Path
from typing import TypeVar

from components.files import hash_of, named
from data.config import Block, EvaluationSet, IngestConfig, RefineConfig, TokenizerConfig

AnyBlock = TypeVar("AnyBlock", bound=Block)


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
        model = hash_of("refine.quality_model", block.quality_model, root)
        return block.model_copy(update={"evaluation_sets": sets, "quality_model_sha256": model})
    if isinstance(block, TokenizerConfig):
        return block.model_copy(update={"path_sha256": hash_of("tokenizer.path", block.path, root)})
    return block


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
    return each.model_copy(update={"sha256": hash_of("refine.evaluation_sets", each.path, root)})
