"""`sluice gate ..` outside of a workspace: exit status, what it prints and writes, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from synthetic_evaluations import TIMINGS, items, write_evaluation

from sluice.core.files import write_json
from sluice.model.evaluation.evidence import TIMINGS_FILE, attest_folder
from sluice.model.evaluation.keys import PRIVATE_KEY_FILE, TRUSTED_FOLDER, signing_key
from sluice.model.evaluation.results import RESULTS_FILE, Item
from sluice.pipelines.cli import main

POLICY = "{name: own, version: 2}"


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key folder outside of a workspace; the working folder has none above it."""
    monkeypatch.delenv("SLUICE_WORKSPACE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "cache" / "sluice" / "keys"


def measure(folder: Path, keys: Path, model: str, rows: list[Item], measured_by: str = "m") -> None:
    write_evaluation(folder, model, rows)
    write_json(folder / TIMINGS_FILE, TIMINGS)
    attest_folder(folder, keys, model=model, measured_by=measured_by)


@pytest.fixture
def evaluation(tmp_path: Path, keys: Path) -> Path:
    """A candidate as good as its baseline."""
    folder = tmp_path / "evaluation"
    measure(folder, keys, "a" * 64, items(0.0, seed=2))
    measure(folder / "baseline", keys, "b" * 64, items(0.0, seed=1))
    return folder


def gate(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Standard output, and of a refusal standard error."""
    found = main(["gate", *map(str, arguments)])
    said = capsys.readouterr()
    assert found == code, said
    return said.out or said.err


def check(capsys: pytest.CaptureFixture[str], folder: Path, code: int = 0) -> str:
    return gate(capsys, "check", folder, "--policy", "policy.yaml", code=code)


def test_a_candidate_as_good_as_its_baseline_is_promoted(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path
) -> None:
    lines = check(capsys, evaluation).splitlines()
    assert lines[0].split() == ["check", "outcome", "value", "one-sided", "95%", "limits", "bound", "n"]
    assert any(line.split()[:2] == ["bits_per_byte_difference", "pass"] for line in lines)
    assert any(line.startswith("promote: All ") for line in lines)
    assert lines[-1] == f"{evaluation}/verdict.json, signed by key {signing_key(keys).id} of {keys}"
    assert "promote" in (evaluation / "evaluation.html").read_text()
    first = json.loads((evaluation / "verdict.json").read_text())["verdict"]
    assert (first["policy"]["name"], first["policy"]["version"]) == ("own", "2")
    assert first["baseline"]["model"] == "b" * 64 and set(first["evidence"]) == {"candidate", "baseline"}
    again = json.loads(gate(capsys, "check", evaluation, "--policy", "policy.yaml", "--json"))
    assert (again["outcome"], again["path"]) == ("promote", f"{evaluation}/verdict.json")


def test_hold_and_reject_have_their_exit_status(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path
) -> None:
    measure(evaluation, keys, "a" * 64, items(0.02, seed=2))
    said = check(capsys, evaluation, code=3)
    assert "hold: " in said and "would decide" in said
    explained = gate(capsys, "explain", evaluation)
    assert explained.startswith("hold: 1 of ") and "Missing:" in explained and "would decide" in explained
    measure(evaluation, keys, "a" * 64, items(0.5, seed=2))
    assert "reject: " in check(capsys, evaluation, code=4)
    assert json.loads(gate(capsys, "explain", evaluation / "verdict.json", "--json"))["outcome"] == "reject"


def test_the_budget_counts_from_the_anchor(capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path) -> None:
    measure(evaluation / "anchor", keys, "c" * 64, items(-0.3, seed=3))
    said = check(capsys, evaluation, code=4)
    assert "bits_per_byte_difference" in said and "fail: bits_per_byte_budget" in said
    shutil.rmtree(evaluation / "anchor")
    Path("policy.yaml").write_text("{name: own, version: 2, anchor: '3'}")
    assert f"count from version 3, and {evaluation / 'anchor'} is not there" in check(capsys, evaluation, code=1)


def test_a_verdict_is_verified_with_the_public_key_alone(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path, tmp_path: Path
) -> None:
    check(capsys, evaluation)
    own = signing_key(keys).id
    public = shutil.copy(keys / TRUSTED_FOLDER / f"{own}.pem", tmp_path / "public.pem")
    rotated = json.loads(gate(capsys, "rotate", "--json"))
    assert rotated["key_id"] != own and sorted(rotated["trusted"]) == sorted([own, rotated["key_id"]])
    assert f"as key {own} signed it: promote of model aaaaaaaaaaaa by policy own 2" in gate(
        capsys, "verify", evaluation
    )
    shutil.rmtree(keys)
    verdict = evaluation / "verdict.json"
    assert own in gate(capsys, "verify", verdict, "--public-key", public)
    assert "no such key" in gate(capsys, "verify", verdict, code=1)
    other = tmp_path / "other"
    signing_key(other)
    refused = gate(capsys, "verify", verdict, "--key", other, code=1)
    assert f"signed by key {own}, which is not trusted here" in refused
    verdict.write_text(verdict.read_text().replace('"promote"', '"reject"'))
    assert "sha256 does not match" in gate(capsys, "verify", verdict, "--public-key", public, code=1)


def test_what_cannot_be_judged_is_one_line(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path, tmp_path: Path
) -> None:
    def refused(said: str) -> str:
        assert said.startswith("sluice gate ") and said.count("\n") == 1, said
        return said

    assert "no such evaluation" in refused(check(capsys, tmp_path / "none", code=1))
    assert "no such policy" in refused(gate(capsys, "check", evaluation, "--policy", "none.yaml", code=1))
    again = f"no such verdict; `sluice gate check {evaluation} --policy FILE` writes it again"
    assert all(again in refused(gate(capsys, action, evaluation, code=1)) for action in ("explain", "verify"))
    assert "not a public" in refused(gate(capsys, "verify", evaluation, "--public-key", "policy.yaml", code=1))
    measure(evaluation / "baseline", keys, "b" * 64, items(0.0, seed=1), measured_by="other settings")
    assert "measured with other settings" in refused(check(capsys, evaluation, code=1))
    (evaluation / "baseline" / TIMINGS_FILE).write_text("{}")
    assert "timings.json: has sha256" in refused(check(capsys, evaluation, code=1))
    (evaluation / "baseline" / "attestation.json").unlink()
    said = refused(check(capsys, evaluation, code=1))
    assert "no such attestation" in said and "sluice evaluate MODEL --out DIR" in said
    (keys / PRIVATE_KEY_FILE).write_text("broken")
    shutil.rmtree(evaluation / "baseline")
    assert "not an Ed25519 private key" in refused(check(capsys, evaluation, code=1))


def test_evaluations_of_other_suites_are_not_compared(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path
) -> None:
    def with_suite(folder: Path, sha256: str, planned: int, has: int) -> None:
        results = json.loads((folder / RESULTS_FILE).read_text())
        results["suites"] = {"capitals": {"sha256": sha256, "version": "1", "planned": {"capitals": has}}}
        results["planned"]["capitals"] = planned
        write_json(folder / RESULTS_FILE, results)
        attest_folder(folder, keys, model=results["hashes"]["model"], measured_by="m")

    with_suite(evaluation / "baseline", "1" * 64, 120, 120)
    with_suite(evaluation, "2" * 64, 120, 120)
    assert "suite capitals: the candidate was measured with 222222222222" in check(capsys, evaluation, code=1)
    with_suite(evaluation, "1" * 64, 40, 120)
    assert "capitals plans 40 items, and suite capitals has 120" in check(capsys, evaluation, code=1)
    with_suite(evaluation / "baseline", "1" * 64, 0, 0)
    with_suite(evaluation, "1" * 64, 0, 0)
    assert "capitals" not in check(capsys, evaluation, code=0), "a policy that does not name it judges without it"
    Path("policy.yaml").write_text("{name: own, version: 2, suites: {capitals: {floor: 0.5}}}")
    assert "capitals n=0 of 0 planned items" in check(capsys, evaluation, code=3)


def test_evaluations_with_other_golden_prompts_are_not_compared(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path
) -> None:
    one, two = "1" * 64, "2" * 64
    for folder, sha256, code in ((evaluation / "baseline", one, 1), (evaluation, one, 0), (evaluation, two, 1)):
        results = json.loads((folder / RESULTS_FILE).read_text())
        results["hashes"]["golden_prompts"] = sha256
        write_json(folder / RESULTS_FILE, results)
        attest_folder(folder, keys, model=results["hashes"]["model"], measured_by="m")
        said = check(capsys, evaluation, code=code)
    assert "suite golden_pass_rate: the candidate was measured with 222222222222" in said


def test_a_suite_is_overdue_by_the_day_of_the_judgement(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path, tmp_path: Path
) -> None:
    rows = [*items(0.0, seed=2), *(Item("capitals", f"c{n}", 1.0) for n in range(120))]
    suite = {"sha256": "1" * 64, "version": "1", "planned": {"capitals": 120}, "overdue": False}
    (tmp_path / "policy.yaml").write_text("{name: own, version: 2, suites: {capitals: {floor: 0.5}}, metrics: {}}")
    for refresh_by, code in (("2999-01-01", 0), ("2020-01-01", 3)):
        write_evaluation(evaluation, "a" * 64, rows)
        results = json.loads((evaluation / RESULTS_FILE).read_text())
        results["suites"] = {"capitals": {**suite, "refresh_by": refresh_by}}
        write_json(evaluation / RESULTS_FILE, results)
        attest_folder(evaluation, keys, model="a" * 64, measured_by="m")
        said = check(capsys, evaluation, code=code)
        assert ("capitals was due for renewal by 2020-01-01" in said) == (code == 3)


def test_a_model_that_a_user_named_is_the_baseline_and_each_line_names_its_check(
    capsys: pytest.CaptureFixture[str], evaluation: Path, keys: Path
) -> None:
    measure(evaluation, keys, "a" * 64, [row for row in items(0.0, seed=2) if row.metric != "bits_per_byte"])
    said = check(capsys, evaluation, code=3)
    reasons = [line for line in said.splitlines() if line.startswith("  inconclusive: ")]
    assert len(reasons) == len(set(reasons)) > 2 and any("bits_per_byte_tail: bits_per_byte n=0" in x for x in reasons)
    explained, page = gate(capsys, "explain", evaluation), (evaluation / "evaluation.html").read_text()
    assert f"the baseline, model {'b' * 12}" in explained
    assert "Bits per byte, difference</b>" in page and "Bits per byte</b>" in page
    assert "champion" not in f"{said}{explained}{page}".lower()


def test_metrics_that_are_off_are_named_wherever_the_verdict_is(
    capsys: pytest.CaptureFixture[str], evaluation: Path
) -> None:
    Path("policy.yaml").write_text("{name: own, version: 2, metrics: {bits_per_byte: off}}")
    assert "  off in the policy: bits_per_byte" in check(capsys, evaluation).splitlines()
    assert "The policy asks nothing of bits_per_byte: off." in gate(capsys, "explain", evaluation)
    assert "<dt>Off in the policy</dt><dd>bits_per_byte</dd>" in (evaluation / "evaluation.html").read_text()
    assert json.loads(gate(capsys, "verify", evaluation, "--json"))["off"] == ["bits_per_byte"]
