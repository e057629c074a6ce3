"""verdict.json: the gate's decision with its checks, hashed and signed, so that promotion can trust it."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from sluice.core.canonical import canonical_json
from sluice.core.check import Check
from sluice.core.files import atomic_write, create_private

PRIVATE_KEY_FILE = "verdict-ed25519.pem"


def _from_stored(stored: Any) -> Any:
    """Schema 1 names a check's value `candidate`."""
    if isinstance(stored, dict) and "candidate" in stored:
        return {**{name: each for name, each in stored.items() if name != "candidate"}, "value": stored["candidate"]}
    return stored


def _to_stored(check: Check) -> dict[str, Any]:
    stored = check.model_dump(mode="json", exclude={"clusters"} if check.clusters is None else None)
    return {"candidate": stored.pop("value"), **stored}


class Verdict(BaseModel):
    """The gate's decision."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    outcome: Literal["promote", "hold", "reject"]
    reason: str
    checks: list[Annotated[Check, BeforeValidator(_from_stored), PlainSerializer(_to_stored)]]
    confidence: float
    """Confidence of all intervals together."""
    correction: str
    hashes: dict[str, str]
    """sha256 of model, tokenizer, data, evaluation set and items; the champion's under champion_*."""
    is_first_version: bool


def _signing_key(folder: Path) -> Ed25519PrivateKey:
    """Load the key of this workspace, made on first use, readable by its owner alone."""
    path = folder / PRIVATE_KEY_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        create_private(path, key)
    return _load_key(path)


def _load_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such key, so no verdict can be checked; `sluice run` makes one") from None
    except ValueError:
        # The library's own message may quote the file, which is secret.
        raise ValueError(f"{path}: not an Ed25519 private key; move it away, and `sluice run` makes another") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: not an Ed25519 private key; move it away, and `sluice run` makes another")
    return key


def write_verdict(verdict: Verdict, path: Path, key_folder: Path) -> str:
    """Write `verdict` to `path`, signed by the key in `key_folder`. Returns the sha256 of the verdict."""
    body = canonical_json(verdict.model_dump(mode="json"))
    signature = _signing_key(key_folder).sign(body)
    digest = hashlib.sha256(body).hexdigest()
    document = {
        "verdict": json.loads(body),
        "sha256": digest,
        "signature": base64.b64encode(signature).decode(),
    }
    with atomic_write(path) as partial:
        partial.write_bytes(canonical_json(document) + b"\n")
    return digest


def read_verdict(path: Path, key_folder: Path) -> Verdict:
    """Read a verdict and check hash and signature; ValueError if one byte of it differs from what was signed."""
    try:
        content = path.read_bytes()
        document = json.loads(content)
        body = canonical_json(document["verdict"])
        digest, signature = document["sha256"], base64.b64decode(document["signature"], validate=True)
        # A file that is not its own canonical form (spaces, repeated keys) may read otherwise to a human than to us.
        canonical = content == canonical_json(document) + b"\n" and set(document) == {"verdict", "sha256", "signature"}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such verdict; `sluice run` writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a verdict ({type(error).__name__}); `sluice run` writes it again") from error
    if not canonical:
        raise ValueError(f"{path}: not in canonical form, so it was changed; `sluice run` writes it again")
    if hashlib.sha256(body).hexdigest() != digest:
        raise ValueError(f"{path}: the sha256 does not match the verdict; `sluice run` writes it again")
    public_key: Ed25519PublicKey = _load_key(key_folder / PRIVATE_KEY_FILE).public_key()
    try:
        public_key.verify(signature, body)
    except InvalidSignature:
        raise ValueError(f"{path}: not signed by the key in {key_folder}; `sluice run` writes it again") from None
    try:
        return Verdict.model_validate(document["verdict"])
    except ValidationError as error:
        raise ValueError(f"{path}: signed, but of another schema; `sluice run` writes it again") from error
