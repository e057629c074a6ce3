"""A verdict that was changed in any way is not read."""

import base64
import hashlib
import json
import shutil
import stat

import pytest
from pydantic import ValidationError

from sluice.core.canonical import canonical_json
from sluice.core.check import Check
from sluice.model.evaluation.keys import PRIVATE_KEY_FILE, TRUSTED_FOLDER, only_key, rotate, signing_key
from sluice.model.evaluation.verdict import (
    ComparedModel,
    PolicyIdentity,
    SuiteIdentity,
    Verdict,
    read_verdict,
    verify_verdict,
    write_verdict,
)


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
        is_first_version=False,
        policy=PolicyIdentity(name="default", version="1", sha256="cd" * 32),
        suites={"capitals": SuiteIdentity(sha256="ef" * 32, version="2", prompts={"template": "01" * 32})},
        baseline=ComparedModel(model="23" * 32, version="3"),
        time="2026-01-01T12:00:00Z",
    )


def rewrite(path, change):
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(canonical_json(document) + b"\n")


def test_round_trip_and_returned_hash(tmp_path, verdict):
    path = tmp_path / "verdict.json"
    digest = write_verdict(verdict, path, tmp_path / "keys")
    signed = verdict.model_copy(update={"key_id": signing_key(tmp_path / "keys").id})
    assert read_verdict(path, tmp_path / "keys") == signed
    assert json.loads(path.read_bytes())["sha256"] == digest
    first = path.read_bytes()
    write_verdict(verdict, path, tmp_path / "keys")
    assert path.read_bytes() == first


def test_the_value_of_a_check_is_stored_as_that_of_the_candidate(tmp_path, verdict):
    path = tmp_path / "verdict.json"
    write_verdict(verdict, path, tmp_path / "keys")
    (stored,) = json.loads(path.read_bytes())["verdict"]["checks"]
    assert stored["candidate"] == 3.61
    assert set(stored) == {"metric", "candidate", "baseline", "n", "interval", "bound", "outcome", "reason"}


def test_private_key_is_readable_by_its_owner_alone_and_stays_out_of_the_file(tmp_path, verdict):
    write_verdict(verdict, tmp_path / "verdict.json", tmp_path / "keys")
    key = tmp_path / "keys" / PRIVATE_KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(file.name for file in (tmp_path / "keys").iterdir()) == [TRUSTED_FOLDER, PRIVATE_KEY_FILE]
    secret = key.read_text().splitlines()[1]
    trusted = next((tmp_path / "keys" / TRUSTED_FOLDER).iterdir())
    assert secret not in (tmp_path / "verdict.json").read_text() + trusted.read_text()
    assert secret not in repr(signing_key(tmp_path / "keys"))


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
        (change_and_rehash, "not signed by key"),
        (flip_signature, "not signed by key"),
        (lambda d: d.update(signature="no base64!"), "not signed by key"),
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


def test_a_key_that_is_not_trusted_is_named(tmp_path, verdict):
    path, keys = tmp_path / "verdict.json", tmp_path / "keys"
    write_verdict(verdict, path, keys)
    write_verdict(verdict, tmp_path / "other.json", tmp_path / "other-keys")
    signer, other = signing_key(keys).id, signing_key(tmp_path / "other-keys").id
    with pytest.raises(ValueError, match=f"signed by key {signer}, which is not trusted here: .* has {other}"):
        read_verdict(path, tmp_path / "other-keys")


def test_the_public_key_alone_verifies(tmp_path, verdict):
    path, keys = tmp_path / "verdict.json", tmp_path / "keys"
    write_verdict(verdict, path, keys)
    public = shutil.copy(keys / TRUSTED_FOLDER / f"{signing_key(keys).id}.pem", tmp_path / "public.pem")
    shutil.rmtree(keys)
    assert verify_verdict(path, only_key(public)).outcome == "reject"
    with pytest.raises(ValueError, match="not a public Ed25519 key"):
        signing_key(keys)
        only_key(keys / PRIVATE_KEY_FILE)


def test_earlier_signatures_stay_valid_after_a_rotation(tmp_path, verdict):
    keys = tmp_path / "keys"
    write_verdict(verdict, tmp_path / "before.json", keys)
    before, after = signing_key(keys).id, rotate(keys).id
    assert after != before and signing_key(keys).id == after
    assert stat.S_IMODE((keys / PRIVATE_KEY_FILE).stat().st_mode) == 0o600
    write_verdict(verdict, tmp_path / "after.json", keys)
    assert [read_verdict(tmp_path / name, keys).key_id for name in ("before.json", "after.json")] == [before, after]


def test_a_swapped_key_signs_nothing_and_verifies_nothing(tmp_path, verdict):
    path, keys, others = tmp_path / "verdict.json", tmp_path / "keys", tmp_path / "others"
    write_verdict(verdict, path, keys)
    own, other = signing_key(keys).id, signing_key(others).id
    shutil.copy(keys / TRUSTED_FOLDER / f"{own}.pem", tmp_path / "own.pem")
    shutil.copy(others / TRUSTED_FOLDER / f"{other}.pem", keys / TRUSTED_FOLDER / f"{own}.pem")
    with pytest.raises(ValueError, match=f"{own}.pem holds key {other}: it was swapped"):
        read_verdict(path, keys)
    shutil.copy(others / PRIVATE_KEY_FILE, keys / PRIVATE_KEY_FILE)
    with pytest.raises(ValueError, match=f"this is key {other}, but {own} signed here: the key was swapped"):
        write_verdict(verdict, path, keys)
    shutil.copy(tmp_path / "own.pem", keys / TRUSTED_FOLDER / f"{own}.pem")
    after = rotate(keys).id
    assert after not in (own, other) and signing_key(keys).id == after, "on purpose"
    assert read_verdict(path, keys).key_id == own


def test_a_key_folder_of_an_earlier_release_has_the_private_key_alone(tmp_path, verdict):
    path, keys = tmp_path / "verdict.json", tmp_path / "keys"
    write_verdict(verdict, path, keys)
    shutil.rmtree(keys / TRUSTED_FOLDER)
    assert read_verdict(path, keys).key_id == signing_key(keys).id
    assert (keys / TRUSTED_FOLDER).is_dir()


def test_a_verdict_of_an_earlier_release_says_what_to_do(tmp_path, verdict):
    path, keys = tmp_path / "verdict.json", tmp_path / "keys"
    new = {"policy", "suites", "baseline", "anchor", "evidence", "time", "key_id"}
    body = verdict.model_dump(mode="json", exclude=new) | {"schema_version": 1}
    signed = canonical_json(body)
    digest, signature = hashlib.sha256(signed).hexdigest(), signing_key(keys).sign(signed)
    path.write_bytes(canonical_json({"verdict": body, "sha256": digest, "signature": signature}) + b"\n")
    with pytest.raises(ValueError, match=r"names no key .* an earlier release wrote it; `sluice run` writes it again"):
        read_verdict(path, keys)


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
        write_verdict(verdict, path, keys)
    assert read_verdict(path, keys).outcome == "reject", "the public key is enough"


def test_a_verdict_holds_no_nan():
    with pytest.raises(ValidationError):
        Check(metric="m", candidate=float("nan"), n=1, bound=1.0, outcome="fail", reason="")
