"""The hashes of the files that settings name, filled in when the settings are composed."""

import json
from contextlib import chdir
from pathlib import Path
from typing import TypeVar

from sluice.components.files import hash_of, named
from sluice.core.settings.block import Block
from sluice.data.config import EvaluationSet, IngestConfig, RefineConfig, TokenizerConfig

AnyBlock = TypeVar("AnyBlock", bound=Block)


def with_hashes(block: AnyBlock, root: Path) -> AnyBlock:
    """The block with the sha256 of every file it names, as it lies below `root` now; local sources have one for all.

    ValueError for a file that does not exist, or whose sha256 somebody has set: it is never anybody's to say. So for a
    tokenizer that is none and a folder that cannot be an index, which would show late otherwise.
    """
    if isinstance(block, IngestConfig):
        return block.model_copy(update={"sources_sha256": _contents(block, root)})
    for each in named(block):
        if each.sha256 is not None:
            raise ValueError(f"{each.setting}: sha256 {each.sha256} is filled in from the file itself: leave it out")
    if isinstance(block, RefineConfig):
        _check_index(block, root)
        sets = [_with_hash(each, root) for each in block.sets]
        model = hash_of("refine.quality_model", block.quality_model, root)
        return block.model_copy(update={"evaluation_sets": sets, "quality_model_sha256": model})
    if isinstance(block, TokenizerConfig):
        sha256 = hash_of("tokenizer.path", block.path, root)
        if block.path is not None:
            _check_tokenizer(root / block.path)
        return block.model_copy(update={"path_sha256": sha256})
    return block


def _check_index(block: RefineConfig, root: Path) -> None:
    if block.index is not None:
        from sluice.data.deduplication.index import DuplicateIndex

        DuplicateIndex.open(root / block.index, block)


def _check_tokenizer(path: Path) -> None:
    """Of the form alone, so that no library is loaded for it; the tokenizer's step loads the file itself."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"tokenizer.path: {path} is not a tokenizer.json: it is no JSON ({error})") from None
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "vocab" not in model or not isinstance(content.get("added_tokens", []), list):
        raise ValueError(
            f"tokenizer.path: {path} is not a tokenizer.json: that has a `model` with a `vocab`, and a list "
            "`added_tokens`; name another file, or leave it out to train one"
        )


def _contents(block: IngestConfig, root: Path) -> str | None:
    if block.sources_sha256 is not None:
        raise ValueError(f"data.sources_sha256 {block.sources_sha256} is filled in from the files: leave it out")
    if not block.given:
        return None
    from sluice.data.sources.local_hash import contents_sha256

    # Relative paths are from the workspace, as the step reads them.
    with chdir(root):
        return contents_sha256(block)


def _with_hash(each: EvaluationSet, root: Path) -> EvaluationSet:
    return each.model_copy(update={"sha256": hash_of("refine.evaluation_sets", each.path, root)})
