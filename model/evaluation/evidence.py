"""Attestation of an evaluation: the sha256 of every file that was measured, signed when it is measured.

The gate reads no evidence that it has not verified. A hash that lies beside the items proves nothing, because whoever
edits the items renews it; a signature over the files does, timings included, and it names the model that was measured
and the settings and code that measured it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sluice.core.canonical import canonical_json
from sluice.core.manifest import file_hash
from sluice.model.evaluation.keys import TrustedKeys, signing_key
from sluice.model.evaluation.report import REPORT_FILE
from sluice.model.evaluation.results import Evaluation, load_evaluation
from sluice.model.evaluation.review.selection import REVIEW_FILE
from sluice.model.evaluation.signed_document import read_signed, write_signed
from sluice.model.evaluation.verdict import VERDICT_FILE

ATTESTATION_FILE = "attestation.json"
TIMINGS_FILE = "timings.json"
NESTED = ("baseline", "anchor")
"""Folders of other models' evaluations within one; each has an attestation of its own."""
_DERIVED = {ATTESTATION_FILE, REPORT_FILE, VERDICT_FILE, REVIEW_FILE}
"""Files of the folder that are made from the evidence; those that the gate reads are signed themselves."""
_KIND = "attestation"


class Attestation(BaseModel):
    """Record of a measurement: its files, its model, and what determined it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    model: str
    """sha256 of the model that was measured."""
    measured_by: str
    """sha256 of the settings, data and code of the measurement, or of its suites."""
    files: dict[str, str]
    """sha256 by file name."""
    key_id: str = ""

    @property
    def sha256(self) -> str:
        """Hash of what was signed."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


@dataclass(frozen=True)
class AttestedEvaluation:
    """An evaluation whose files were verified."""

    evaluation: Evaluation
    attestation: Attestation
    version: str = ""
    """The model's version in the registry, where it has one."""

    @property
    def model(self) -> str:
        """Hash of the model that was measured."""
        return self.attestation.model


def evidence_files(folder: Path) -> dict[str, Path]:
    """Return the files of an evaluation by name, without those that are made from it, and without nested ones."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in names.items() if name not in _DERIVED and name.partition("/")[0] not in NESTED}


def attest(files: Mapping[str, Path], path: Path, key_folder: Path, *, model: str, measured_by: str) -> str:
    """Write the attestation of `files` to `path`, signed by the key in `key_folder`. Returns its sha256."""
    hashes = {name: file_hash(file) for name, file in files.items()}
    attestation = Attestation(model=model, measured_by=measured_by, files=hashes)
    return write_signed(path, _KIND, attestation.model_dump(mode="json"), signing_key(key_folder))


def attest_folder(folder: Path, key_folder: Path, *, model: str, measured_by: str) -> str:
    """Attest an evaluation folder with its timings.json; the attestation lies beside the files."""
    return attest(evidence_files(folder), folder / ATTESTATION_FILE, key_folder, model=model, measured_by=measured_by)


def verify(
    files: Mapping[str, Path],
    path: Path,
    trusted: TrustedKeys,
    *,
    redo: str,
    model: str | None = None,
    measured_by: str | None = None,
) -> Attestation:
    """Hash `files` again and compare them with the attestation at `path`.

    `model` and `measured_by` are what it must have measured, where the caller knows. ValueError that names the file
    that was changed, added or removed, or the other model; `redo` says how to measure again.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: no such attestation, so nobody vouches for these measurements: an earlier release or another "
            f"workspace made them; {redo}"
        )
    try:
        found = Attestation.model_validate(read_signed(path, _KIND, trusted, redo))
    except ValidationError as error:
        raise ValueError(f"{path}: signed, but of another schema; {redo}") from error
    for name in sorted(found.files.keys() | files.keys()):
        if name not in files or not files[name].is_file():
            raise ValueError(f"{files.get(name, path.parent / name)}: measured, but not there; {redo}")
        if name not in found.files:
            raise ValueError(f"{files[name]}: not among the files that were measured; remove it, or {redo}")
        if (now := file_hash(files[name])) != found.files[name]:
            raise ValueError(
                f"{files[name]}: has sha256 {now[:12]}, and {found.files[name][:12]} was measured: it was changed "
                f"afterwards; {redo}"
            )
    if model is not None and found.model != model:
        raise ValueError(f"{path}: measures model {found.model[:12]}, not {model[:12]}: another model's; {redo}")
    if measured_by is not None and found.measured_by != measured_by:
        raise ValueError(f"{path}: measured with other settings, data or code; {redo}")
    return found


def verify_folder(
    folder: Path, trusted: TrustedKeys, *, redo: str, model: str | None = None, measured_by: str | None = None
) -> Attestation:
    """Verify an evaluation folder whose timings and attestation lie beside the files. ValueError as `verify`."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such evaluation; {redo}")
    path = folder / ATTESTATION_FILE
    return verify(evidence_files(folder), path, trusted, redo=redo, model=model, measured_by=measured_by)


def open_evaluation(
    folder: Path,
    trusted: TrustedKeys,
    *,
    redo: str,
    model: str | None = None,
    measured_by: str | None = None,
    version: str = "",
) -> AttestedEvaluation:
    """Verify and read such a folder. ValueError as `verify`."""
    attestation = verify_folder(folder, trusted, redo=redo, model=model, measured_by=measured_by)
    path = folder / TIMINGS_FILE
    timings = json.loads(path.read_bytes()) if path.is_file() else {}
    return AttestedEvaluation(load_evaluation(folder, timings), attestation, version)
