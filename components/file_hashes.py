"""The files that settings name, when a run is composed: hashed, and refused at once where a step could not use them."""

import json
from contextlib import chdir
from pathlib import Path

from sluice.components.params import validate_block
from sluice.core.settings.files import AnyBlock, hash_files
from sluice.data.config import IngestConfig, RefineConfig, TokenizerConfig


def with_hashes(block: AnyBlock, root: Path) -> AnyBlock:
    """The block with the sha256 of every file that it names below `root`; local sources have one hash for all of them.

    ValueError for a file that is missing or of the wrong kind, and for a hash that is given.
    """
    kind = type(block)
    hashed = validate_block(kind, hash_files(kind, block.model_dump(mode="json"), root, composing=True))
    if isinstance(hashed, IngestConfig):
        for name in ("sources_sha256", "versions_sha256"):
            if (given := getattr(hashed, name)) is not None:
                raise ValueError(f"data.{name} {given} is filled in from the files: leave it out")
        if not hashed.given:
            return hashed
        from sluice.data.sources.local_hash import contents_sha256

        # Relative paths are from the workspace, as the step reads them.
        with chdir(root):
            return hashed.model_copy(update={"sources_sha256": contents_sha256(hashed)})
    if isinstance(hashed, RefineConfig) and hashed.index is not None:
        from sluice.data.deduplication.index import DuplicateIndex

        DuplicateIndex.open(root / hashed.index, hashed)
    if isinstance(hashed, TokenizerConfig) and hashed.path is not None:
        path = root / hashed.path
        # The form alone, which needs no library; the tokenizer step loads the file itself.
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
    return hashed
