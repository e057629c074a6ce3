"""verdict.json: the gate's decision with its checks, hashed and signed, so that promotion can trust it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from sluice.core.check import Check
from sluice.model.evaluation.keys import TrustedKeys, signing_key, trusted_keys
from sluice.model.evaluation.signed_document import read_signed, write_signed

VERDICT_FILE = "verdict.json"
_KIND = "verdict"
_REDO = "`sluice run` writes it again"


def _from_stored(stored: Any) -> Any:
    """In the file a check's value has the name `candidate`."""
    if isinstance(stored, dict) and "candidate" in stored:
        return {**{name: each for name, each in stored.items() if name != "candidate"}, "value": stored["candidate"]}
    return stored


def _to_stored(check: Check) -> dict[str, Any]:
    stored = check.model_dump(mode="json", exclude={"clusters"} if check.clusters is None else None)
    return {"candidate": stored.pop("value"), **stored}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PolicyIdentity(_Part):
    """The policy by which the gate judged."""

    name: str
    version: str
    sha256: str


class SuiteIdentity(_Part):
    """A set of items that was measured."""

    sha256: str
    version: str = ""
    prompts: dict[str, str] = {}
    """Hashes of its prompt template and rubrics, by name."""


class ComparedModel(_Part):
    """A model with which the candidate was compared on the same items."""

    model: str
    """sha256 of its files."""
    version: str = ""
    """Its version in the registry, where it has one."""


class Verdict(_Part):
    """The gate's decision, and everything that it rests on."""

    schema_version: Literal[2] = 2
    outcome: Literal["promote", "hold", "reject"]
    reason: str
    checks: list[Annotated[Check, BeforeValidator(_from_stored), PlainSerializer(_to_stored)]]
    confidence: float
    """Confidence of an interval before any correction."""
    correction: str
    hashes: dict[str, str]
    """sha256 of model, tokenizer, data, evaluation set and items; the champion's under champion_*."""
    is_first_version: bool
    policy: PolicyIdentity | None = None
    suites: dict[str, SuiteIdentity] = {}
    baseline: ComparedModel | None = None
    """The champion, or the model that a user named beside the candidate; None where there is none."""
    anchor: ComparedModel | None = None
    """The pinned version that bounds the sum of small losses."""
    evidence: dict[str, str] = {}
    """sha256 of the attestation of each evaluation that was read: candidate, baseline, anchor."""
    time: str = ""
    """When the gate judged, ISO 8601 in UTC."""
    off: list[str] = []
    """Metrics that the policy takes out."""
    key_id: str = ""
    """The key that signed; empty before the verdict is written."""


def write_verdict(verdict: Verdict, path: Path, key_folder: Path) -> str:
    """Write `verdict` to `path`, signed by the key in `key_folder`. Returns the sha256 of the verdict."""
    return write_signed(path, _KIND, verdict.model_dump(mode="json"), signing_key(key_folder))


def read_verdict(path: Path, key_folder: Path, redo: str = _REDO) -> Verdict:
    """Read a verdict that a key of this folder signed; ValueError if one byte of it differs from what was signed.

    `redo` ends the message of the error and says what writes the verdict again.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such verdict; {redo}")
    return verify_verdict(path, trusted_keys(key_folder), redo)


def verify_verdict(path: Path, trusted: TrustedKeys, redo: str = _REDO) -> Verdict:
    """Read a verdict and check hash and signature with public keys alone. ValueError as `read_verdict`."""
    content = read_signed(path, _KIND, trusted, redo)
    try:
        return Verdict.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: signed, but of another schema; {redo}") from error
