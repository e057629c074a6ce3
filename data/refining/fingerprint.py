"""Fingerprint of everything that determines the scored parts: equal fingerprints, equal parts."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import sluice.core.arrow
import sluice.core.hashing
from sluice.data.config import RefineConfig
from sluice.data.document import document_shards

THRESHOLDS = frozenset(
    {name for name in RefineConfig.model_fields if name.startswith(("min_", "max_"))}
    - {"max_piece_copies", "min_piece_words", "min_substring_words"}
) | {"languages", "contamination_policy", "contamination_sign"}
"""Settings that decide what is kept, given the scores. All others change the scores."""
_MEASURED_BY = (
    "datatrove",
    "detect-secrets",
    "ftfy",
    "lxml",
    "markdown-it-py",
    "numpy",
    "phonenumbers",
    "py3langid",
)
"""Libraries that the scores depend on."""


def fingerprint(config: RefineConfig, documents: Path, sets: str) -> str:
    """Return the fingerprint, 16 hex digits, of a folder of raw documents, the settings other than thresholds, the
    evaluation sets (`sets` is their own fingerprint), the libraries and the code.
    """
    shards = hashlib.sha256()
    for path in document_shards(documents):
        with path.open("rb") as file:
            shards.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    measured = config.model_dump_json(exclude={*THRESHOLDS, "workers", "evaluation_sets", "index"})
    versions = [f"{name}=={version(name)}" for name in _MEASURED_BY]
    digest = hashlib.sha256(f"{shards.hexdigest()[:32]} {measured} {sets} {versions}".encode())
    models = [Path(config.quality_model)] if config.quality_model else []
    for path in [*models, *code_files()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def code_files() -> list[Path]:
    """List the code that the scores depend on: the data package, and the modules of core that encode and hash."""
    core = [Path(sluice.core.arrow.__file__), Path(sluice.core.hashing.__file__)]
    return [*sorted(Path(__file__).parents[1].rglob("*.py")), *core]
