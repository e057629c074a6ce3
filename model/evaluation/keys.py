"""Ed25519 keys of evidence: one signs, and the public keys of all that ever signed here are trusted.

| file in the key folder | contents |
| --- | --- |
| `verdict-ed25519.pem` | the key that signs, readable by its owner alone |
| `trusted/<key id>.pem` | a public key whose signatures are accepted |

A key's id is the first 16 hex digits of the sha256 of its 32 public bytes. After a rotation, signatures of the earlier
key stay valid, because its public key stays in `trusted/`.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sluice.core.files import atomic_write, create_private

PRIVATE_KEY_FILE = "verdict-ed25519.pem"
TRUSTED_FOLDER = "trusted"
_ID_DIGITS = 16


def key_id(key: Ed25519PublicKey) -> str:
    """Return the short name of a public key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:_ID_DIGITS]


@dataclass(frozen=True)
class SigningKey:
    """The private key of a folder."""

    id: str
    key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey(id={self.id!r})"  # never the secret, should a log show it

    def sign(self, body: bytes) -> str:
        """Return the signature of `body` in base64."""
        return base64.b64encode(self.key.sign(body)).decode()


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys whose signatures are accepted."""

    keys: Mapping[str, Ed25519PublicKey]
    """By key id."""
    place: str
    """Where they come from, for messages."""

    def verify(self, signer: str, signature: str, body: bytes) -> None:
        """Raise ValueError unless `signature` (base64) is that of the key with the id `signer` over `body`."""
        if signer not in self.keys:
            raise ValueError(
                f"signed by key {signer}, which is not trusted here: {self.place} has {', '.join(sorted(self.keys))}. "
                f"It was signed elsewhere, or the key was swapped; if you trust its signer, put the public key into "
                f"{TRUSTED_FOLDER}/{signer}.pem"
            )
        try:
            self.keys[signer].verify(base64.b64decode(signature, validate=True), body)
        except (InvalidSignature, ValueError):
            raise ValueError(f"not signed by key {signer}, so it was changed after it was signed") from None


def signing_key(folder: Path) -> SigningKey:
    """Load the key that signs, made on first use. ValueError for a damaged key, and for one that was swapped."""
    path = folder / PRIVATE_KEY_FILE
    if not path.exists():
        _make_key(folder)
    key = _load_private(path)
    own = key_id(key.public_key())
    known = _trusted_files(folder)
    if not known:
        _trust(folder, key.public_key())  # a folder of an earlier release has the private key alone
    elif own not in known:
        raise ValueError(
            f"{path}: this is key {own}, but {', '.join(sorted(known))} signed here: the key was swapped. Restore the "
            "earlier key; to replace it on purpose, run `sluice gate rotate`"
        )
    return SigningKey(own, key)


def rotate(folder: Path) -> SigningKey:
    """Replace the key that signs by a new one. Earlier public keys stay trusted."""
    if (folder / PRIVATE_KEY_FILE).exists() and not _trusted_files(folder):
        signing_key(folder)  # writes down the public key of a folder of an earlier release
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    # Trusted first: killed in between, the folder still has a key that signs and whose signatures are accepted.
    _trust(folder, key.public_key())
    fresh = folder / f".{PRIVATE_KEY_FILE}.{key_id(key.public_key())}"
    create_private(fresh, _private_bytes(key))
    fresh.replace(folder / PRIVATE_KEY_FILE)
    return SigningKey(key_id(key.public_key()), key)


def trusted_keys(folder: Path) -> TrustedKeys:
    """Read the public keys of a key folder. ValueError where there is none, and for a file that is not what its name
    says.
    """
    files = _trusted_files(folder)
    if not files:
        if not (folder / PRIVATE_KEY_FILE).exists():
            raise ValueError(f"{folder}: no such key, so no signature can be checked; `sluice run` makes one")
        public = _load_private(folder / PRIVATE_KEY_FILE).public_key()
        return TrustedKeys({key_id(public): public}, str(folder))
    keys = {}
    for name, path in files.items():
        key = read_public_key(path)
        if key_id(key) != name:
            raise ValueError(
                f"{path} holds key {key_id(key)}: it was swapped, because a trusted key's file has the name of its "
                "key; restore it, or remove it"
            )
        keys[name] = key
    return TrustedKeys(keys, str(folder / TRUSTED_FOLDER))


def only_key(path: Path) -> TrustedKeys:
    """Trust the public key in one PEM file alone."""
    key = read_public_key(path)
    return TrustedKeys({key_id(key): key}, str(path))


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key. ValueError for another file; a private key is refused too, it need not leave its folder."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such public key") from None
    except (ValueError, OSError):
        # The library's own message may quote the file, which could be a secret.
        raise ValueError(f"{path}: not a public Ed25519 key in PEM; give one of {TRUSTED_FOLDER}/*.pem") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path}: not a public Ed25519 key in PEM; give one of {TRUSTED_FOLDER}/*.pem")
    return key


def _make_key(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    mine = _trust(folder, key.public_key())
    create_private(folder / PRIVATE_KEY_FILE, _private_bytes(key))
    if key_id(_load_private(folder / PRIVATE_KEY_FILE).public_key()) != mine.stem:
        mine.unlink()  # another process was faster, and this key will never sign


def _private_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_private(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        # The library's own message may quote the file, which is secret.
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: not an Ed25519 private key; move it away, and `sluice run` makes another")
    return key


def _trusted_files(folder: Path) -> dict[str, Path]:
    """Return the files of trusted public keys by the key id in their names."""
    return {path.stem: path for path in sorted((folder / TRUSTED_FOLDER).glob("*.pem"))}


def _trust(folder: Path, key: Ed25519PublicKey) -> Path:
    path = folder / TRUSTED_FOLDER / f"{key_id(key)}.pem"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path
