"""A verdict that was changed in any way is not read."""

import base64
import hashlib
import json
import stat

import pytest
from pydantic import ValidationError

from sluice.core.canonical import canonical_json
from sluice.core.check import Check
from sluice.model.evaluation.verdict import PRIVATE_KEY_FILE, Verdict, read_verdict, write_verdict


@pytest.fixture
def verdict():
    check = Check(
        metric="bits_per_byte",
        value=3.61,
        n=120,
        interval=(3.55, None),
        bound=3.0,
        outcome="fail",
        reason="bits_per_byte 3.61 [3.55, 3.66] > 3.00, n=120, ä",
    )
    return Verdict(
        outcome="reject",
        reason=check.reason,
        checks=[check],
        confidence=0.95,
        correction="none",
        hashes={"model": "ab" * 32},
        is_first_version=True,
    )


def rewrite(path, change):
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(canonical_json(document) + b"\n")


def test_round_trip_and_returned_hash(tmp_path, verdict):
    path = tmp_path / "verdict.json"
    digest = write_verdict(verdict, path, tmp_path / "keys")
    assert read_verdict(path, tmp_path / "keys") == verdict
    assert json.loads(path.read_bytes())["sha256"] == digest
    first = path.read_bytes()
    write_verdict(verdict, path, tmp_path / "keys")
    assert path.read_bytes() == first


def test_a_check_is_stored_as_schema_1_names_it(tmp_path, verdict):
    path = tmp_path / "verdict.json"
    write_verdict(verdict, path, tmp_path / "keys")
    (stored,) = json.loads(path.read_bytes())["verdict"]["checks"]
    assert stored["candidate"] == 3.61
    assert set(stored) == {"metric", "candidate", "baseline", "n", "interval", "bound", "outcome", "reason"}


def test_private_key_is_readable_by_its_owner_alone_and_stays_out_of_the_file(tmp_path, verdict):
    write_verdict(verdict, tmp_path / "verdict.json", tmp_path / "keys")
    key = tmp_path / "keys" / PRIVATE_KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "keys").iterdir()] == [PRIVATE_KEY_FILE]
    secret = key.read_text().splitlines()[1]
    assert secret not in (tmp_path / "verdict.json").read_text()


def flip_signature(document):
    raw = bytearray(base64.b64decode(document["signature"]))
    raw[0] ^= 1
    document["signature"] = base64.b64encode(bytes(raw)).decode()


def change_and_rehash(document):
    document["verdict"]["outcome"] = "promote"
    document["sha256"] = hashlib.sha256(canonical_json(document["verdict"])).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["verdict"]["checks"][0].update(candidate=2.61), "sha256 does not match"),
        (lambda d: d["verdict"]["checks"][0].update(n=121), "sha256 does not match"),
        (lambda d: d.update(sha256="0" * 64), "sha256 does not match"),
        (change_and_rehash, "not signed by the key"),
        (flip_signature, "not signed by the key"),
        (lambda d: d.update(signature="no base64!"), "not a verdict"),
        (lambda d: d.update(note="added"), "not in canonical form"),
        (lambda d: d.pop("signature"), "not a verdict"),
    ],
)
def test_tampering_is_refused(tmp_path, verdict, change, message):
    path = tmp_path / "verdict.json"
    write_verdict(verdict, path, tmp_path / "keys")
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        read_verdict(path, tmp_path / "keys")


def test_a_key_repeated_for_human_eyes_is_refused(tmp_path, verdict):
    path = tmp_path / "verdict.json"
    write_verdict(verdict, path, tmp_path / "keys")
    path.write_bytes(path.read_bytes().replace(b'"outcome":"reject"', b'"outcome":"promote","outcome":"reject"'))
    with pytest.raises(ValueError, match="canonical form"):
        read_verdict(path, tmp_path / "keys")


def test_another_key_is_refused(tmp_path, verdict):
    path = tmp_path / "verdict.json"
    write_verdict(verdict, path, tmp_path / "keys")
    write_verdict(verdict, tmp_path / "other.json", tmp_path / "other-keys")
    with pytest.raises(ValueError, match="not signed by the key"):
        read_verdict(path, tmp_path / "other-keys")


def test_missing_file_missing_key_and_truncated_files_are_one_clear_line(tmp_path, verdict):
    path, keys = tmp_path / "verdict.json", tmp_path / "keys"
    with pytest.raises(ValueError, match="no such verdict"):
        read_verdict(path, keys)
    write_verdict(verdict, path, keys)
    with pytest.raises(ValueError, match="no such key"):
        read_verdict(path, tmp_path / "empty")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a verdict"):
        read_verdict(path, keys)
    write_verdict(verdict, path, keys)
    (keys / PRIVATE_KEY_FILE).write_text("not a key")
    with pytest.raises(ValueError, match="not an Ed25519 private key"):
        read_verdict(path, keys)


def test_a_verdict_holds_no_nan():
    with pytest.raises(ValidationError):
        Check(metric="m", candidate=float("nan"), n=1, bound=1.0, outcome="fail", reason="")
