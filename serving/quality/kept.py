"""The greedy answers that the gate kept of a registered version, checked against its verdict."""

from pathlib import Path
from typing import NamedTuple

from sluice.core.manifest import file_hash
from sluice.model.evaluation.parity import KeptAnswer, read_parity
from sluice.model.evaluation.verdict import read_verdict
from sluice.serving.registry import Registry


class KeptAnswers(NamedTuple):
    """Answers to hold a served version to, or why there are none."""

    answers: list[KeptAnswer]
    note: str = ""


def kept_answers(registry: Registry, version: str, key_folder: Path) -> KeptAnswers:
    """Return the answers kept of `version`.

    Raises ValueError if the verdict is not signed by a trusted key, or the file is not the one that it names.
    """
    verdict = read_verdict(registry.verdict_path(version), key_folder)
    expected = verdict.hashes.get("parity")
    if expected is None:
        return KeptAnswers([], f"parity not available: the gate kept no answers of v{version}")
    path = registry.parity_path(version)
    if path is None:
        return KeptAnswers([], f"parity not available: the answers that the gate kept of v{version} are gone")
    if (found := file_hash(path)) != expected:
        raise ValueError(
            f"{path}: has sha256 {found[:12]}, and the verdict of v{version} names {expected[:12]}: it was changed; "
            "restore it from a backup, or remove it to release without parity"
        )
    return KeptAnswers(read_parity(path))
