"""Records kept with a version: the model card, and the lineage as files."""

from pathlib import Path

import pytest
import yaml

from sluice.components.artifact import check_artifact
from sluice.components.lineage import lineage_tags, write_lineage
from sluice.components.model_card import model_card
from sluice.components.workspace import Workspace
from sluice.core.check import Check
from sluice.core.manifest import file_hash, write_manifest
from sluice.model.evaluation.verdict import Verdict

SECRET = "https://example.org/text.jsonl?sig=SECRETSIG"


@pytest.fixture
def ran(tmp_path: Path) -> Workspace:
    """A workspace whose last run read a source with a secret in its address."""
    data = {"sources": [SECRET], "workers": 2}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"data": data, "pretrain": {"steps": 7}}))
    stages = {
        "ingest": {"params": {"params.yaml": {"data": data}}, "outs": [{"path": "artifacts/ingest", "md5": "1.dir"}]},
        "refine": {"outs": [{"path": "artifacts/refine", "md5": "2.dir"}]},
        "tokenizer": {"outs": [{"path": "artifacts/tokenizer", "md5": "3.dir"}]},
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    return Workspace(tmp_path)


def test_lineage_keeps_the_files_that_the_next_run_overwrites(
    ran: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.components.lineage.git_commit", lambda workspace: "c0ffee")
    out = tmp_path / "out"
    out.mkdir()
    params, lock = write_lineage(ran, out)
    assert yaml.safe_load(params.read_text())["pretrain"]["steps"] == 7
    assert yaml.safe_load(lock.read_text())["stages"]["refine"]["outs"][0]["md5"] == "2.dir"
    tags = lineage_tags(ran, [params, lock])
    assert (tags["params"], tags["dvc_lock"]) == (file_hash(params), file_hash(lock))
    assert (tags["data"], tags["tokenizer"]) == ("2.dir", "3.dir")


def test_secrets_of_sources_stay_out_of_the_registry(ran: Workspace, tmp_path: Path) -> None:
    for path in write_lineage(ran, tmp_path):
        assert "example.org/text.jsonl" in path.read_text() and "SECRETSIG" not in path.read_text()


@pytest.mark.parametrize(("outcome", "heading"), [("promote", "Why it may serve"), ("reject", "Why it may not serve")])
def test_the_card_says_what_the_model_is_and_why_it_may_serve(outcome: str, heading: str) -> None:
    check = Check(metric="bits_per_byte", bound=2.0, n=40, outcome="pass", reason="bits_per_byte 1.5 < 2 | n=40")
    verdict = Verdict.model_validate(
        {
            "outcome": outcome,
            "reason": "",
            "checks": [check],
            "confidence": 0.95,
            "correction": "none",
            "hashes": {},
            "is_first_version": True,
        }
    )
    metrics = {"pretrain": {"parameters": 137_024}, "ingest": {"sources": {"local": {}}}, "tune": {}}
    card = model_card("sluice", verdict, metrics, {"git_commit": "c0ffee" * 7, "user": "ada"})
    assert f"## {heading}" in card and f"**{outcome}**" in card
    assert "| parameters | 137,024 |" in card and "| registered by | ada |" in card and "`c0ffeec0ffee`" in card
    assert r"| bits_per_byte 1.5 < 2 \| n=40 | **pass** |" in card
    assert "| training tokens |" not in card, "what is not known is left out"
    assert "by force" not in card
    assert "by force: a drill" in model_card("sluice", verdict, metrics, {"forced": "a drill"})


def test_a_file_changed_without_a_change_of_size_is_found_where_the_artifact_is_acted_on(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    write_manifest(tmp_path)
    check_artifact(tmp_path, rehash=True)
    (tmp_path / "model.safetensors").write_text("WEIGHTS")
    check_artifact(tmp_path)
    with pytest.raises(ValueError, match=r"model.safetensors has sha256 .* remove .* and run again"):
        check_artifact(tmp_path, rehash=True)
