"""A JSON file with one signed part: canonical, hashed, and signed by a key of sluice.model.evaluation.keys."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice.core.canonical import canonical_json
from sluice.core.files import atomic_write
from sluice.model.evaluation.keys import SigningKey, TrustedKeys


def write_signed(path: Path, kind: str, content: Mapping[str, Any], key: SigningKey) -> str:
    """Write `content` with the id of `key` under the name `kind`, signed. Returns its sha256."""
    body = canonical_json({**content, "key_id": key.id})
    digest = hashlib.sha256(body).hexdigest()
    document = {kind: json.loads(body), "sha256": digest, "signature": key.sign(body)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(canonical_json(document) + b"\n")
    return digest


def read_signed(path: Path, kind: str, trusted: TrustedKeys, redo: str) -> dict[str, Any]:
    """Read the content under the name `kind` after checking form, hash and signature.

    ValueError if one byte differs from what was signed, or the key is not trusted; `redo` ends the message and says
    what makes the file again.
    """
    try:
        raw = path.read_bytes()
        document = json.loads(raw)
        content, digest, signature = document[kind], document["sha256"], document["signature"]
        body = canonical_json(content)
        # A file that is not its own canonical form (spaces, repeated keys) may read otherwise to a human than to us.
        is_canonical = raw == canonical_json(document) + b"\n" and set(document) == {kind, "sha256", "signature"}
        signer = content.get("key_id")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such {kind}; {redo}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a {kind} ({type(error).__name__}); {redo}") from error
    if not is_canonical:
        raise ValueError(f"{path}: not in canonical form, so it was changed; {redo}")
    if hashlib.sha256(body).hexdigest() != digest:
        raise ValueError(f"{path}: the sha256 does not match the {kind}; {redo}")
    if signer is None:
        raise ValueError(f"{path}: names no key that signed it, so an earlier release wrote it; {redo}")
    try:
        trusted.verify(str(signer), str(signature), body)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {redo}") from None
    return dict(content)
